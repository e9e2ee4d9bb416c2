// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const (
	helmIgnoreFile = ".helmignore"
	// maxUnpacked is what one archive may be without its compression: all files of a payload, and a header for each.
	maxUnpacked = maxBytes + 1024*maxFiles
	// maxSubcharts is how deep subcharts lie in each other; more is an archive that holds itself.
	maxSubcharts = 16
)

// chartPart is one file of a chart, by its path in the chart.
type chartPart struct {
	name    string
	content []byte
}

// ignoring says what a chart leaves out of itself.
type ignoring func(name string, info fs.FileInfo) bool

// chartParts reads the chart in a folder, without what it ignores, in the order of a walk. Archives of
// subcharts are unpacked.
func chartParts(t *tree, folder string, ignored ignoring) ([]chartPart, error) {
	var parts []chartPart
	seen := 0
	err := fs.WalkDir(t.files, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == folder {
			return err
		}
		if seen++; seen > maxFiles {
			return tooLarge("%s holds over %d files and folders", shown(folder), maxFiles)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		below := belowFolder(folder, name)
		switch {
		case ignored(below, info) && entry.IsDir():
			return fs.SkipDir
		case ignored(below, info):
			return nil
		}
		if err := checkMode(name, info.Mode()); err != nil || entry.IsDir() {
			return err
		}
		content, err := t.read(name)
		parts = append(parts, chartPart{below, withoutMark(content)})
		return err
	})
	if err != nil {
		return nil, err
	}
	return unpackAll(t, parts)
}

func belowFolder(folder, name string) string {
	if folder == "." {
		return name
	}
	return strings.TrimPrefix(name, folder+"/")
}

// withoutMark drops the mark that some editors put before UTF-8.
func withoutMark(content []byte) []byte { return bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")) }

// unpackAll puts the files of every archive in charts/ in the archive's place, as Helm would unpack them, but
// within the bounds of the payload.
func unpackAll(t *tree, parts []chartPart) ([]chartPart, error) {
	var all []chartPart
	for queue := parts; len(queue) > 0; {
		part := queue[0]
		queue = queue[1:]
		if !isSubchartArchive(part.name) {
			all = append(all, part)
			continue
		}
		if strings.Count(part.name, "charts/") > maxSubcharts {
			return nil, tooLarge("%s: over %d charts lie within each other", clip(part.name), maxSubcharts)
		}
		inside, err := unpack(t, part)
		if err != nil {
			return nil, err
		}
		queue = append(inside, queue...)
	}
	return all, nil
}

// isSubchartArchive says whether Helm would unpack a file: only those right in a charts folder, and not those
// whose name says to leave them alone.
func isSubchartArchive(name string) bool {
	dir, base := path.Split(name)
	parent, inCharts := strings.CutSuffix(strings.TrimSuffix(dir, "/"), "charts")
	return inCharts && isChartRoot(strings.TrimSuffix(parent, "/")) && path.Ext(base) == ".tgz" && !strings.ContainsAny(base[:1], "_.")
}

// isChartRoot says whether a folder of a chart is the chart's own, or that of a subchart.
func isChartRoot(dir string) bool {
	if dir == "" || dir == "." {
		return true
	}
	words := strings.Split(dir, "/")
	for i := 0; i < len(words); i += 2 {
		if words[i] != "charts" {
			return false
		}
	}
	return len(words)%2 == 0
}

// unpack gives the files of one archive of a chart, each in a folder that stands in the archive's place.
func unpack(t *tree, archive chartPart) ([]chartPart, error) {
	refuse := func(format string, args ...any) ([]chartPart, error) {
		return nil, failure(v1alpha1.ReasonRenderFailed, archive.name+": "+format, args...)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive.content))
	if err != nil {
		return refuse("this is no archive of a chart: %w", err)
	}
	var parts []chartPart
	limited := &io.LimitedReader{R: unzipped, N: maxUnpacked + 1}
	for files := tar.NewReader(limited); ; {
		header, err := files.Next()
		switch {
		case limited.N <= 0:
			return nil, tooLarge("%s: unpacked, it is over %d MiB", archive.name, maxUnpacked>>20)
		case errors.Is(err, io.EOF):
			return parts, nil
		case err != nil:
			return refuse("this is no archive of a chart: %w", err)
		case header.FileInfo().IsDir() || header.Typeflag == tar.TypeXGlobalHeader:
			continue
		case header.Typeflag != tar.TypeReg:
			return refuse("it holds %s, which is no file; archives may hold no links", clip(header.Name))
		}
		_, below, _ := strings.Cut(strings.ReplaceAll(header.Name, `\`, "/"), "/")
		if below = path.Clean(below); !fs.ValidPath(below) || below == "." || strings.Contains(below, ":") {
			return refuse("it holds %s, which is not in the chart's folder", clip(header.Name))
		}
		if header.Size > maxBytes {
			return nil, tooLarge("%s: it holds %s, which is over %d MiB", archive.name, clip(below), maxBytes>>20)
		}
		content, err := io.ReadAll(files)
		if err != nil && limited.N > 0 {
			return refuse("this is no archive of a chart: %w", err)
		}
		name := archive.name + ".unpacked/" + below
		if err := t.used.file(archive.name, len(content)); err != nil {
			return nil, err
		}
		parts = append(parts, chartPart{name, withoutMark(content)})
	}
}

// checkParts measures every YAML file that Helm parses before it renders, because Helm has no bounds of its own.
func checkParts(t *tree, label string, parts []chartPart) error {
	for _, part := range parts {
		dir, base := path.Split(part.name)
		if !isChartRoot(strings.TrimSuffix(dir, "/")) {
			continue
		}
		where := path.Join(label, part.name)
		switch base {
		case "values.yaml":
			if _, err := t.valuesIn(where, part.content); err != nil {
				return err
			}
		case chartFile, "Chart.lock", "requirements.yaml", "requirements.lock":
			if _, err := t.scan(where, part.content); err != nil {
				return because(v1alpha1.ReasonRenderFailed, err)
			}
		}
	}
	return nil
}
