// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"fmt"
	"strings"
	"testing"
)

// A fleet repository of 300 members and 200 rollouts, each with stages of limited size.
func BenchmarkLint(b *testing.B) {
	all := map[string]string{}
	for i := range 300 {
		name := fmt.Sprintf("c-%d", i)
		all["members/"+name+".yaml"] = memberYAML(name, fmt.Sprintf("region: r%d", i%4))
	}
	for i := range 200 {
		name := fmt.Sprintf("app-%d", i)
		all["rollouts/"+name+".yaml"] = strings.Replace(good, "name: web", "name: "+name, 1)
	}
	files := filesOf(all)
	b.ReportAllocs()
	for b.Loop() {
		report, err := lintRepository(files, unrendered)
		if err != nil || report.Errors > 0 || report.Rollouts != 200 {
			b.Fatalf("%+v, %v", report, err)
		}
	}
}
