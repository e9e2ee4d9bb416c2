// SPDX-License-Identifier: Apache-2.0

// Package crashtest answers: what is left of what a member said when its process, its disk or its machine ends at any moment?
//
// Its tests run a member in a process of its own, kill it, stop it and damage its file, while another member stays in
// the mesh. `go test -run Kill -kills 200` sets how often; FLOTILLA_SOAK=1 is 2,000 times.
package crashtest
