// SPDX-License-Identifier: Apache-2.0

package compattest

import (
	"io"
	"path/filepath"
	"slices"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/kube/fake"
	helmrelease "helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
)

// delivered are the hooks that a release delivers; those of delete, rollback and test are left out.
var delivered = []helmrelease.HookEvent{ //nolint:gochecknoglobals // never changed
	helmrelease.HookPreInstall, helmrelease.HookPostInstall, helmrelease.HookPreUpgrade, helmrelease.HookPostUpgrade,
}

// template is 'helm template --include-crds', with the hooks that a release delivers.
func (p Payload) template() ([]map[string]any, error) {
	folder := filepath.Join(p.Root, p.Path)
	chart, err := loader.LoadDir(folder)
	if err != nil {
		return nil, err
	}
	if err := action.CheckDependencies(chart, chart.Metadata.Dependencies); err != nil {
		return nil, err // as the command does
	}
	version, err := chartutil.ParseKubeVersion(kubeVersion)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if p.Values != "" {
		if values, err = chartutil.ReadValuesFile(filepath.Join(folder, p.Values)); err != nil {
			return nil, err
		}
	}
	install := action.NewInstall(&action.Configuration{
		Releases:     storage.Init(driver.NewMemory()),
		KubeClient:   &fake.PrintingKubeClient{Out: io.Discard},
		Capabilities: chartutil.DefaultCapabilities.Copy(),
		Log:          func(string, ...any) {},
	})
	install.DryRun, install.DryRunOption, install.ClientOnly, install.Replace = true, "true", true, true
	install.IncludeCRDs, install.KubeVersion = true, version
	install.ReleaseName, install.Namespace = release, namespace
	installed, err := install.Run(chart, values)
	if err != nil {
		return nil, err
	}
	objects, err := decode(installed.Manifest)
	if err != nil {
		return nil, err
	}
	for _, hook := range installed.Hooks {
		if !slices.ContainsFunc(hook.Events, func(e helmrelease.HookEvent) bool { return slices.Contains(delivered, e) }) {
			continue
		}
		more, err := decode(hook.Manifest)
		if err != nil {
			return nil, err
		}
		objects = append(objects, more...)
	}
	return objects, nil
}
