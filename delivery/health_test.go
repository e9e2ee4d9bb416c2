// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSum(t *testing.T) {
	is := func(name string, state HealthState, because string) ObjectHealth {
		return ObjectHealth{Object: ObjectID{Kind: "Thing", Name: name}, State: state, Because: because}
	}
	well, slow, broken := is("a", Healthy, ""), is("b", Progressing, "starts"), is("c", Failed, "crashed")
	gone := is("d", Progressing, "is not there")
	gone.Missing = true
	for name, test := range map[string]struct {
		objects []ObjectHealth
		want    Health
	}{
		"nothing":                     {nil, Health{State: Healthy}},
		"all are well":                {[]ObjectHealth{well, well}, Health{State: Healthy, Ready: 2, Total: 2}},
		"one is on its way":           {[]ObjectHealth{slow, well}, Health{State: Progressing, Ready: 1, Total: 2, Because: "Thing b: starts"}},
		"one is missing":              {[]ObjectHealth{gone, well}, Health{State: Progressing, Ready: 1, Total: 2, Because: "Thing d: is not there"}},
		"what is missing comes last":  {[]ObjectHealth{gone, slow}, Health{State: Progressing, Total: 2, Because: "Thing b: starts; Thing d: is not there"}},
		"what failed comes first":     {[]ObjectHealth{slow, well, broken}, Health{State: Failed, Ready: 1, Total: 3, Because: "Thing c: crashed; Thing b: starts"}},
		"more than are named at once": {[]ObjectHealth{gone, slow, slow, broken}, Health{State: Failed, Total: 4, Because: "Thing c: crashed; Thing b: starts; and 2 more"}},
	} {
		test.want.Objects = test.objects
		if diff := cmp.Diff(test.want, Sum(test.objects)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}
