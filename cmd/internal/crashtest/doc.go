// SPDX-License-Identifier: Apache-2.0

// Package crashtest answers: what is left of what a member said when its process, its disk or its machine ends at any moment?
//
// Its tests run a member in a process of its own, kill it, stop it and damage its file, while another member stays in
// the mesh. `go test -run Kill -kills 200` sets how often: 30 times by default, 200 times without the race detector in
// `make test`, and 2,000 times with FLOTILLA_SOAK=1.
package crashtest
