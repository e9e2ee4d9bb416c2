// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var someFiles = map[string]string{
	"kustomization.yaml": "resources: [a]",
	"a/one.yaml":         "one",
	"a/b/two.yaml":       "two",
	"c.yaml":             "",
}

// sameFiles gives the same files sealed and in kustomize's own memory.
func sameFiles(t *testing.T) (*sealed, filesys.FileSystem) {
	t.Helper()
	ours, theirs := newSealed(), filesys.MakeFsInMemory()
	for name, text := range someFiles {
		ours.add(name, []byte(text))
		if err := theirs.WriteFile(mount+"/"+name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return ours, theirs
}

func TestSealedReadsAsKustomizesOwn(t *testing.T) {
	ours, theirs := sameFiles(t)
	for _, name := range []string{
		"/source", "/source/", "/source/a", "/source/a/", "/source/a/b/../one.yaml", "/source/a/b/two.yaml",
		"/source/c.yaml", "/source/nothing", "/source/a/nothing", "/source/c.yaml/x", "/elsewhere", "/source2",
	} {
		if a, b := ours.Exists(name), theirs.Exists(name); a != b {
			t.Errorf("Exists(%s) = %v, want %v", name, a, b)
		}
		if a, b := ours.IsDir(name), theirs.IsDir(name); a != b {
			t.Errorf("IsDir(%s) = %v, want %v", name, a, b)
		}
		dirA, fileA, errA := ours.CleanedAbs(name)
		dirB, fileB, errB := theirs.CleanedAbs(name)
		if dirA != dirB || fileA != fileB || (errA == nil) != (errB == nil) {
			t.Errorf("CleanedAbs(%s) = %s, %s, %v, want %s, %s, %v", name, dirA, fileA, errA, dirB, fileB, errB)
		}
		contentA, errA := ours.ReadFile(name)
		contentB, errB := theirs.ReadFile(name)
		if string(contentA) != string(contentB) || (errA == nil) != (errB == nil) {
			t.Errorf("ReadFile(%s) = %q, %v, want %q, %v", name, contentA, errA, contentB, errB)
		}
		listA, errA := ours.ReadDir(name)
		listB, errB := theirs.ReadDir(name)
		slices.Sort(listB)
		if !slices.Equal(listA, listB) || (errA == nil) != (errB == nil) {
			t.Errorf("ReadDir(%s) = %v, %v, want %v, %v", name, listA, errA, listB, errB)
		}
	}
	for _, pattern := range []string{"/source/*", "/source/*.yaml", "/source/a/*/*", "/source/["} {
		a, errA := ours.Glob(pattern)
		b, errB := theirs.Glob(pattern)
		b = slices.DeleteFunc(b, theirs.IsDir) // theirs gives files alone
		a = slices.DeleteFunc(a, ours.IsDir)
		slices.Sort(b)
		if !slices.Equal(a, b) || (errA == nil) != (errB == nil) {
			t.Errorf("Glob(%s) = %v, %v, want %v, %v", pattern, a, errA, b, errB)
		}
	}
}

func TestSealedWalks(t *testing.T) {
	ours, theirs := sameFiles(t)
	visited := func(f filesys.FileSystem, root string, verdict func(string) error) []string {
		var names []string
		err := f.Walk(root, func(name string, info fs.FileInfo, err error) error {
			if err != nil {
				return err
			}
			names = append(names, name)
			if info.IsDir() != f.IsDir(name) || info.Name() != filepath.Base(name) {
				t.Errorf("%s: it says that it is %s", name, fs.FormatFileInfo(info))
			}
			return verdict(name)
		})
		if err != nil {
			t.Errorf("Walk(%s): %v", root, err)
		}
		slices.Sort(names)
		return names
	}
	on := func(string) error { return nil }
	for _, root := range []string{"/source", "/source/a"} {
		if diff := cmp.Diff(visited(theirs, root, on), visited(ours, root, on)); diff != "" {
			t.Errorf("Walk(%s) (-kustomize's +ours):\n%s", root, diff)
		}
	}
	skip := func(name string) error {
		if name == "/source/a" {
			return filepath.SkipDir
		}
		return nil
	}
	want := []string{"/source", "/source/a", "/source/c.yaml", "/source/kustomization.yaml"}
	if diff := cmp.Diff(want, visited(ours, "/source", skip)); diff != "" {
		t.Errorf("without a:\n%s", diff)
	}
	if got := visited(ours, "/source", func(string) error { return filepath.SkipAll }); len(got) != 1 {
		t.Errorf("after SkipAll it went on: %v", got)
	}
	broken := errors.New("broken")
	if err := ours.Walk("/source", func(string, fs.FileInfo, error) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Walk hides the error of its function: %v", err)
	}
}

func TestSealedIsReadOnly(t *testing.T) {
	ours, _ := sameFiles(t)
	_, createErr := ours.Create("/source/new")
	for name, err := range map[string]error{
		"Create":    createErr,
		"Mkdir":     ours.Mkdir("/source/new"),
		"MkdirAll":  ours.MkdirAll("/source/new/folder"),
		"RemoveAll": ours.RemoveAll("/source/a"),
		"WriteFile": ours.WriteFile("/source/c.yaml", []byte("other")),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want %v", name, err, fs.ErrPermission)
		}
	}
	f, err := ours.Open("/source/a/one.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Write: %v", err)
	}
	content, err := io.ReadAll(f)
	if err != nil || string(content) != "one" {
		t.Errorf("read %q, %v", content, err)
	}
	info, err := f.Stat()
	if err != nil || info.Size() != 3 || info.IsDir() || !info.ModTime().IsZero() {
		t.Errorf("Stat: %v, %v", info, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := ours.Open("/source/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder can be opened as a file: %v", err)
	}
	// What kustomize does with its bytes stays with kustomize.
	got, err := ours.ReadFile("/source/a/one.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got[0] = 'X'
	if again, _ := ours.ReadFile("/source/a/one.yaml"); string(again) != "one" {
		t.Errorf("the sealed file is now %q", again)
	}
}
