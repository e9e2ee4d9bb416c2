// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

const (
	chartFile = "Chart.yaml"
	maxPath   = 512 // bytes of a file's path
	// freeBytes may be unpacked whatever the archive's size is: a few empty tar blocks compress to nothing.
	freeBytes = 1 << 20
)

// unpack reads a chart's archive: a gzipped tar with one folder, which has a Chart.yaml. The folder's name is
// stripped. Whatever could lie outside of it, or is not a plain file, is refused, not passed over: a chart
// that is rendered without one of its files is another chart.
func unpack(archive []byte, limits Limits) (files, error) {
	packed, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, short()
		}
		return nil, unreadable("the archive is not a gzipped tar: %w", err)
	}
	u := unpacker{limits: limits, files: newFiles(), meter: &meter{from: packed, most: limits.MaxUnpackedBytes}}
	if ratio := int64(len(archive)) * int64(limits.MaxRatio); ratio < u.meter.most {
		u.meter.most, u.meter.byRatio = max(ratio, min(freeBytes, u.meter.most)), true
	}
	if err := u.all(); err != nil {
		return nil, u.explain(err)
	}
	if chart := u.files[chartFile]; chart == nil || chart.folder {
		return nil, unreadable("the archive has no %s in its folder: it is no chart", chartFile)
	}
	u.files.sort()
	return u.files, nil
}

func short() error {
	return retryable("it was damaged on its way, or where it lies; it is tried again", "%w", errShort)
}

type unpacker struct {
	limits Limits
	meter  *meter
	files  files
	top    string
	sum    int64
}

func (u *unpacker) all() error {
	from := tar.NewReader(u.meter)
	for {
		h, err := from.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := u.take(h, from); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, u.meter) // what is left has the checksum behind it
	return err
}

// take one member of the archive.
func (u *unpacker) take(h *tar.Header, from io.Reader) error {
	folder := h.Typeflag == tar.TypeDir
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil // a comment of git archive
	case tar.TypeReg, tar.TypeDir:
	default:
		return unreadable("%q in the archive is %s: a chart has files and folders only", source.Printable(h.Name, 120), kindOf(h.Typeflag))
	}
	name, err := u.place(h.Name, folder)
	if err != nil {
		return err
	}
	var content []byte
	if !folder {
		if content, err = u.read(name, h.Size, from); err != nil {
			return err
		}
	}
	if !u.files.add(name, content, folder) {
		return unreadable("%q is in the archive twice", source.Printable(h.Name, 120))
	}
	if len(u.files)-1 > u.limits.MaxFiles {
		return tooLarge("", "the chart has more than %d files and folders", u.limits.MaxFiles)
	}
	return nil
}

// place of a member below the one folder at the top.
func (u *unpacker) place(name string, folder bool) (string, error) {
	shown := source.Printable(name, 120)
	switch {
	case len(name) > maxPath:
		return "", tooLarge("", "the path %q in the archive is longer than %d bytes", shown, maxPath)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }):
		return "", unreadable("the path %q in the archive has characters that no path in a chart has", shown)
	case strings.HasPrefix(name, "/"):
		return "", unreadable("the path %q in the archive is absolute", shown)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", unreadable("the path %q in the archive leads out of it", shown)
		}
	}
	name = path.Clean(name)
	if name == "." && folder {
		return name, nil // tar's own word for where it was made
	}
	top, rest, below := strings.Cut(name, "/")
	if !below && !folder {
		return "", unreadable("%q lies beside the chart's folder in the archive", shown)
	}
	if u.top == "" {
		u.top = top
	}
	if u.top != top {
		return "", unreadable("the archive has two folders at its top, %q and %q: a chart is one", source.Printable(u.top, 60), source.Printable(top, 60))
	}
	if !below {
		return ".", nil
	}
	return rest, nil
}

// read one file.
func (u *unpacker) read(name string, bytes int64, from io.Reader) ([]byte, error) {
	if bytes > u.limits.MaxFileBytes {
		return nil, tooLarge("", "%s of the chart is larger than %s", source.Printable(name, 120), source.Size(u.limits.MaxFileBytes))
	}
	if u.sum += bytes; u.sum > u.limits.MaxUnpackedBytes {
		return nil, errMuch
	}
	content := make([]byte, bytes)
	_, err := io.ReadFull(from, content)
	return content, err
}

// explain what ended the reading.
func (u *unpacker) explain(err error) error {
	var e *fleet.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, errMuch) && u.meter.byRatio:
		return tooLarge("no chart compresses so well: is it meant to fill this machine?", "the archive unpacks to more than %d times its size", u.limits.MaxRatio)
	case errors.Is(err, errMuch):
		return tooLarge("", "the archive unpacks to more than %s", source.Size(u.limits.MaxUnpackedBytes))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return short()
	}
	return unreadable("the archive is damaged: %w", err)
}

func kindOf(flag byte) string {
	switch flag {
	case tar.TypeSymlink, tar.TypeLink:
		return "a link"
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return "a device"
	}
	return "something else than a file"
}

var errMuch = errors.New("too much comes out of the archive")

// meter reads at most so many bytes out of an archive and fails beyond.
type meter struct {
	from    io.Reader
	most    int64
	byRatio bool // most is a multiple of the archive's size
	read    int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	if m.read += int64(n); m.read > m.most {
		return 0, errMuch
	}
	return n, err
}

// subject is a line about a chart for people.
func (f files) subject() string {
	var about struct {
		Description string `json:"description"`
		AppVersion  string `json:"appVersion"`
	}
	if err := yaml.Unmarshal(f[chartFile].content, &about); err != nil {
		return "" // whoever renders it says what is wrong
	}
	if line := source.Printable(about.Description, 200); line != "" {
		return line
	}
	if line := source.Printable(about.AppVersion, 100); line != "" {
		return "app version " + line
	}
	return ""
}
