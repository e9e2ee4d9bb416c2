// SPDX-License-Identifier: Apache-2.0

// Write makes the pages of docs/reference that are about the API, from the root of the repository:
//
//	go run ./cmd/internal/refdocs/write
package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/flotilla-dev/flotilla/cmd/internal/refdocs"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	paths, err := filepath.Glob("deploy/crd/*.yaml")
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return errors.New("no deploy/crd here: run it from the root of the repository")
	}
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(b, a) }) // rollouts before members
	var crds [][]byte
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		crds = append(crds, body)
	}
	api, err := refdocs.API(crds...)
	if err != nil {
		return err
	}
	source, err := os.ReadFile("api/v1alpha1/conditions.go")
	if err != nil {
		return err
	}
	conditions, err := refdocs.Conditions(source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll("docs/reference", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("docs/reference/api.md", []byte(api), 0o644); err != nil {
		return err
	}
	return os.WriteFile("docs/reference/conditions.md", []byte(conditions), 0o644)
}
