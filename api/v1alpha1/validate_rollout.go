// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	maxURL  = 2048
	maxPath = 512
	maxName = 253

	chartURLWords = "%q: https or http of a repository with an index.yaml, or oci://registry/path"
	combineWords  = "names and labels cannot be combined: give names, or matchLabels/matchExpressions (to narrow by both, label the members)"
)

var (
	gitURL    = regexp.MustCompile(`^(https?|ssh)://.+$`)
	chartURL  = regexp.MustCompile(`^(https?|oci)://.+$`)
	chartName = regexp.MustCompile(`^[A-Za-z0-9._/-]+$`)
	gitRef    = regexp.MustCompile(`^refs/.+$`)
	gitCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)
	// scpLike is how git writes ssh URLs in short: git@host:path.
	scpLike = regexp.MustCompile(`^([\w.-]+@)?([\w.-]+):([^/].*)$`)
	// inSelector is a name in a selector, or "*".
	inSelector = regexp.MustCompile(`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`)
)

func (c *checker) source(field string, s *Source) {
	if (s.Git == nil) == (s.Helm == nil) {
		c.say(field, "name exactly one of git, helm")
	}
	if s.Git != nil {
		c.git(field+".git", s.Git)
	}
	if s.Helm != nil {
		c.chartAt(field+".helm", s.Helm.URL, s.Helm.Chart)
		c.required(field+".helm.version", s.Helm.Version, 128)
	}
	switch {
	case strings.HasPrefix(s.Path, "/") || strings.Contains(s.Path, ".."):
		c.say(field+".path", "%q: a path inside the source: no leading '/' and no '..'", s.Path)
	case s.Git == nil && s.Helm != nil && s.Path != "" && s.Path != "./":
		c.say(field+".path", "only git has paths")
	}
	c.text(field+".path", s.Path, maxPath)
	c.duration(field+".timeout", s.Timeout, time.Second, "at least 1s")
	c.duration(field+".interval", s.Interval, 10*time.Second, "at least 10s; members tell each other of a new head, so polling faster only costs the server")
	c.duration(field+".timeout", s.Timeout, 0, "")
	c.reference(field+".secretRef", s.SecretRef)
	c.reference(field+".proxySecretRef", s.ProxySecretRef)
	if s.Git == nil && s.Helm != nil && s.Ignore != "" {
		c.say(field+".ignore", "only git has files to ignore")
	}
	c.text(field+".ignore", s.Ignore, 4096)
}

func (c *checker) git(field string, g *GitSource) {
	if c.required(field+".url", g.URL, maxURL) && !gitURL.MatchString(g.URL) {
		hint := ""
		if m := scpLike.FindStringSubmatch(g.URL); m != nil {
			hint = fmt.Sprintf("; write it as ssh://%s%s/%s", m[1], m[2], m[3])
		}
		c.say(field+".url", "%q: an https, http or ssh URL: https://host/path or ssh://git@host/path%s", g.URL, hint)
	}
	if g.Ref != nil {
		c.ref(field+".ref", g.Ref)
	}
	c.texts(field+".sparseCheckout", g.SparseCheckout, 64, maxPath)
	unique(c, field+".sparseCheckout", g.SparseCheckout)
}

func (c *checker) ref(field string, r *GitRef) {
	given := 0
	for _, value := range []string{r.Branch, r.Tag, r.SemVer, r.Name, r.Commit} {
		if value != "" {
			given++
		}
	}
	if given != 1 {
		c.say(field, "name exactly one of branch, tag, semver, name, commit")
	}
	c.text(field+".branch", r.Branch, 255)
	c.text(field+".tag", r.Tag, 255)
	c.text(field+".semver", r.SemVer, 255)
	c.text(field+".name", r.Name, 255)
	if r.Name != "" && !gitRef.MatchString(r.Name) {
		c.say(field+".name", "%q: a reference in full, such as refs/heads/main or refs/pull/420/head", r.Name)
	}
	if r.Commit != "" && !gitCommit.MatchString(r.Commit) {
		c.say(field+".commit", "%q is not a full commit hash of 40 hex digits", r.Commit)
	}
}

// chartAt is where a chart lies and what it is called there.
func (c *checker) chartAt(field, url, chart string) {
	if c.required(field+".url", url, maxURL) && !chartURL.MatchString(url) {
		c.say(field+".url", chartURLWords, url)
	}
	if c.required(field+".chart", chart, maxName) && !chartName.MatchString(chart) {
		c.say(field+".chart", "%q: the chart's name in the repository: letters, digits, '.', '_', '/' and '-'", chart)
	}
}

func (c *checker) reference(field string, r *LocalReference) {
	if r != nil {
		c.required(field+".name", r.Name, maxName)
	}
}

func (c *checker) targets(field string, t *Targets) {
	if t.IsEmpty() && t.Names == nil {
		c.say(field, `say which members: matchLabels, matchExpressions or names; for every member of the fleet write names: ["*"]`)
	}
	c.selector(field, &t.ClusterSelector)
	if t.Exclude != nil {
		c.selector(field+".exclude", t.Exclude)
	}
}

func (c *checker) selector(field string, s *ClusterSelector) {
	if s.Names != nil && (s.MatchLabels != nil || s.MatchExpressions != nil) {
		c.say(field, combineWords)
	}
	if s.Names != nil && len(s.Names) == 0 {
		c.say(field+".names", `at least 1 item; for every member of the fleet write names: ["*"]`)
	}
	c.count(field+".names", len(s.Names), 256)
	for i, name := range s.Names {
		if !inSelector.MatchString(name) || len(name) > 63 {
			c.say(fmt.Sprintf("%s.names[%d]", field, i), "%q: the name of a member, or \"*\": %s", name, nameWords)
		}
	}
	unique(c, field+".names", s.Names)
	if _, err := s.Matcher(); err != nil {
		c.say(field, "%v", err)
	}
}

func (c *checker) strategy(field string, s *Strategy) {
	c.oneOf(field+".type", s.Type, "Staged", "AllAtOnce")
	if s.Type == "AllAtOnce" && s.Stages != nil {
		c.say(field+".stages", "only with type: Staged; AllAtOnce has no stages")
	}
	if s.Type == "AllAtOnce" && s.MaxConcurrency != nil {
		c.say(field+".maxConcurrency", "AllAtOnce starts every cluster at once; for a limit use type: Staged with one stage")
	}
	c.pacing(field, &s.Pacing)
	if s.Stages != nil && len(s.Stages) == 0 {
		c.say(field+".stages", "at least 1 item; leave it out for automatic stages")
	}
	c.count(field+".stages", len(s.Stages), 32)
	names := make([]string, len(s.Stages))
	for i := range s.Stages {
		names[i] = s.Stages[i].Name
		c.stage(fmt.Sprintf("%s.stages[%d]", field, i), &s.Stages[i])
	}
	unique(c, field+".stages", names)
	for i := range s.Stages {
		if s.Stages[i].open() && i != len(s.Stages)-1 {
			c.say(field+".stages", "only the last stage may leave out matchLabels, matchExpressions, names and size (it takes all that is left)")
			break
		}
	}
}

// open says that the stage takes all that is left.
func (s *Stage) open() bool {
	return s.Names == nil && s.MatchLabels == nil && s.MatchExpressions == nil && s.Size == nil
}

func (c *checker) stage(field string, s *Stage) {
	c.label(field+".name", s.Name)
	if s.Name == "rest" && !s.open() {
		c.say(field, "'rest' is the stage for what no other takes; it has no selector")
	}
	c.selector(field, &s.ClusterSelector)
	if !within(s.Size, 1, 100) {
		c.say(field+".size", "%s: a number of at least 1, or 1%% to 100%%", marshalled(s.Size))
	}
	c.pacing(field, &s.Pacing)
}

// label is a name that is required.
func (c *checker) label(field, name string) {
	switch {
	case name == "":
		c.say(field, "required")
	case !memberName.MatchString(name):
		c.say(field, "%q: %s", name, nameWords)
	}
}

func (c *checker) pacing(field string, p *Pacing) {
	if !within(p.MaxConcurrency, 1, 100) {
		c.say(field+".maxConcurrency", "%s: a number of at least 1, or 1%% to 100%%; to stop a rollout use suspend or 'flotilla pause'", marshalled(p.MaxConcurrency))
	}
	if !within(p.MaxUnavailable, 0, 99) {
		c.say(field+".maxUnavailable", "%s: a number, or 0%% to 99%%; 100%% would let every cluster fail", marshalled(p.MaxUnavailable))
	}
	c.duration(field+".minReadyTime", p.MinReadyTime, 0, "")
	c.duration(field+".soak", p.Soak, 0, "")
	c.duration(field+".progressDeadline", p.ProgressDeadline, 10*time.Second, "at least 10s")
}

// within says that a number is not below least, and a percentage is from least to most.
func within(v *intstr.IntOrString, least, most int) bool {
	if v == nil {
		return true
	}
	if v.Type == intstr.Int {
		return v.IntValue() >= least
	}
	digits, percent := strings.CutSuffix(v.StrVal, "%")
	n, err := strconv.Atoi(digits)
	return percent && err == nil && strconv.Itoa(n) == digits && n >= least && n <= most
}

func (c *checker) delivery(field string, d *Delivery) {
	c.text(field+".serviceAccountName", d.ServiceAccountName, maxName)
	c.duration(field+".interval", d.Interval, 10*time.Second, "at least 10s; changes to what was applied are seen by watching")
	c.duration(field+".retryInterval", d.RetryInterval, time.Second, "at least 1s")
	c.number(field+".retries", d.Retries, 100)
	if g := d.PruneGuard; g != nil {
		c.number(field+".pruneGuard.maxObjects", g.MaxObjects, 0)
		c.number(field+".pruneGuard.maxPercent", g.MaxPercent, 100)
	}
}

// number that is given is from 0 to most; a most of 0 is none.
func (c *checker) number(field string, n *int32, most int32) {
	switch {
	case n == nil:
	case *n < 0:
		c.say(field, "%d: at least 0", *n)
	case most > 0 && *n > most:
		c.say(field, "%d: at most %d", *n, most)
	}
}
