// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

var chartYAML = member{name: "podinfo/Chart.yaml", content: "name: podinfo\nversion: 1.0.0\n"}

func TestUnpack(t *testing.T) {
	archive := pack(t,
		member{name: "./", kind: tar.TypeDir},
		member{kind: tar.TypeXGlobalHeader, link: "a comment of git archive"},
		member{name: "./podinfo/", kind: tar.TypeDir},
		chartYAML,
		member{name: "podinfo/templates/", kind: tar.TypeDir},
		member{name: "podinfo/templates/deploy.yaml", content: "kind: Deployment"},
		member{name: "podinfo/a..b", content: "dots"},
		member{name: "podinfo/empty/", kind: tar.TypeDir},
	)
	chart, err := unpack(archive, Limits{}.orDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(chart, "Chart.yaml", "templates/deploy.yaml", "a..b", "empty"); err != nil {
		t.Error(err)
	}
	if chart.subject() != "" {
		t.Errorf("subject %q of a chart that says nothing", chart.subject())
	}
}

func TestUnpackRefuses(t *testing.T) {
	long := "podinfo/" + strings.Repeat("long/", 110) + "x"
	noise := make([]byte, 200<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32()) //nolint:gosec // it only must not compress
	}
	whole := pack(t, chartYAML, member{name: "podinfo/noise", content: string(noise)})
	for _, tc := range []struct {
		name    string
		archive []byte
		kind    fleet.ErrorKind
		reason  string
		part    string
	}{
		{"absolute", pack(t, chartYAML, member{name: "/etc/passwd"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, `"/etc/passwd" in the archive is absolute`},
		{"up", pack(t, chartYAML, member{name: "podinfo/../../x"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "leads out of it"},
		{"up and down", pack(t, chartYAML, member{name: "podinfo/a/../b"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "leads out of it"},
		{"symbolic link", pack(t, chartYAML, member{name: "podinfo/x", kind: tar.TypeSymlink, link: "Chart.yaml"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, `"podinfo/x" in the archive is a link`},
		{"hard link", pack(t, chartYAML, member{name: "podinfo/x", kind: tar.TypeLink, link: "podinfo/Chart.yaml"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "is a link"},
		{"device", pack(t, chartYAML, member{name: "podinfo/x", kind: tar.TypeChar}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "is a device"},
		{"fifo", pack(t, chartYAML, member{name: "podinfo/x", kind: tar.TypeFifo}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "is a device"},
		{"backslash", pack(t, chartYAML, member{name: `podinfo\x`}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "characters that no path"},
		{"control character", pack(t, chartYAML, member{name: "podinfo/a\nb"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "characters that no path"},
		{"two folders", pack(t, chartYAML, member{name: "other/x"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, `two folders at its top, "podinfo" and "other"`},
		{"beside the folder", pack(t, chartYAML, member{name: "x"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "lies beside the chart's folder"},
		{"no Chart.yaml", pack(t, member{name: "podinfo/values.yaml"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "no Chart.yaml"},
		{"Chart.yaml is a folder", pack(t, member{name: "podinfo/Chart.yaml/x"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "no Chart.yaml"},
		{"twice", pack(t, chartYAML, chartYAML), fleet.Terminal, v1alpha1.ReasonFetchFailed, `"podinfo/Chart.yaml" is in the archive twice`},
		{"file below a file", pack(t, chartYAML, member{name: "podinfo/Chart.yaml/x"}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "twice"},
		{"folder over a file", pack(t, chartYAML, member{name: "podinfo/Chart.yaml/", kind: tar.TypeDir}), fleet.Terminal, v1alpha1.ReasonFetchFailed, "twice"},
		{"nothing", pack(t), fleet.Terminal, v1alpha1.ReasonFetchFailed, "no Chart.yaml"},
		{"no gzip", []byte("a chart, honestly, and a long one"), fleet.Terminal, v1alpha1.ReasonFetchFailed, "not a gzipped tar"},
		{"no tar", zipped(t, bytes.Repeat([]byte("x"), 2000)), fleet.Terminal, v1alpha1.ReasonFetchFailed, "damaged"},
		{"no bytes", nil, fleet.Retryable, v1alpha1.ReasonFetchFailed, "ends before its end"},
		{"cut in the header", whole[:5], fleet.Retryable, v1alpha1.ReasonFetchFailed, "ends before its end"},
		{"cut", whole[:len(whole)/2], fleet.Retryable, v1alpha1.ReasonFetchFailed, "ends before its end"},
		{"checksum cut", whole[:len(whole)-4], fleet.Retryable, v1alpha1.ReasonFetchFailed, "ends before its end"},
		{"checksum wrong", append(bytes.Clone(whole[:len(whole)-8]), 1, 2, 3, 4, 5, 6, 7, 8), fleet.Terminal, v1alpha1.ReasonFetchFailed, "checksum"},
		{"long path", pack(t, chartYAML, member{name: long}), fleet.Terminal, v1alpha1.ReasonTooLarge, "longer than 512 bytes"},
		{"large file", pack(t, chartYAML, member{name: "podinfo/x", content: string(noise) + string(noise)}), fleet.Terminal, v1alpha1.ReasonTooLarge, "podinfo/x"[8:] + " of the chart is larger than"},
		{"large", pack(t, chartYAML, member{name: "podinfo/x", content: string(noise)}, member{name: "podinfo/y", content: string(noise)}, member{name: "podinfo/z", content: string(noise)}),
			fleet.Terminal, v1alpha1.ReasonTooLarge, "unpacks to more than"},
		{"many files", pack(t, chartYAML, member{name: "podinfo/1/2/3/4/5/6/7/8/9/x"}), fleet.Terminal, v1alpha1.ReasonTooLarge, "more than 8 files and folders"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := unpack(tc.archive, Limits{MaxFiles: 8, MaxFileBytes: 300 << 10, MaxUnpackedBytes: 500 << 10}.orDefaults())
			wantError(t, err, tc.kind, tc.reason, tc.part)
		})
	}
}

func zipped(t testing.TB, content []byte) []byte {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if _, err := zip.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestUnpackBomb: zeros compress a thousand times.
func TestUnpackBomb(t *testing.T) {
	bomb := pack(t, chartYAML, member{name: "podinfo/zeros", content: strings.Repeat("\x00", 4<<20)})
	if len(bomb) > 20<<10 {
		t.Fatalf("%d bytes are no bomb", len(bomb))
	}
	_, err := unpack(bomb, Limits{}.orDefaults())
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "more than 200 times its size")
	small := pack(t, chartYAML, member{name: "podinfo/zeros", content: strings.Repeat("\x00", 500<<10)})
	if _, err := unpack(small, Limits{}.orDefaults()); err != nil {
		t.Errorf("what is small is no bomb: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	for _, members := range [][]member{
		{chartYAML, {name: "podinfo/templates/a.yaml", content: "a"}},
		{{name: "./x/Chart.yaml"}, {name: "x/../y"}},
		{chartYAML, {name: "podinfo/l", kind: tar.TypeSymlink, link: "/etc"}},
	} {
		archive := pack(f, members...)
		f.Add(archive, true)
		from, err := gzip.NewReader(bytes.NewReader(archive))
		if err != nil {
			f.Fatal(err)
		}
		var plain bytes.Buffer
		if _, err := plain.ReadFrom(from); err != nil {
			f.Fatal(err)
		}
		f.Add(plain.Bytes(), false)
	}
	limits := Limits{MaxUnpackedBytes: 1 << 20, MaxFiles: 50, MaxFileBytes: 100 << 10}.orDefaults()
	f.Fuzz(func(t *testing.T, archive []byte, packed bool) {
		if !packed {
			archive = zipped(t, archive) // so that the fuzzer gets at the tar
		}
		chart, err := unpack(archive, limits)
		if err != nil {
			var e *fleet.Error
			if !errors.As(err, &e) || e.Reason == "" || len(err.Error()) > 1000 {
				t.Fatalf("not an error for people: %v", err)
			}
			return
		}
		var sum int64
		count := 0
		err = fs.WalkDir(chart, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || !fs.ValidPath(name) || len(name) > maxPath || d.Type()&^fs.ModeDir != 0 {
				t.Fatalf("%q: %v, %v", name, d, err)
			}
			info, err := d.Info()
			count++
			sum += info.Size()
			return err
		})
		if err != nil || sum > limits.MaxUnpackedBytes || count-1 > limits.MaxFiles {
			t.Fatalf("%d bytes in %d files: %v", sum, count, err)
		}
		chart.subject()
	})
}
