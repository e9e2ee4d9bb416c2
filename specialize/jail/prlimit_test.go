// SPDX-License-Identifier: Apache-2.0

//go:build linux

package jail

import (
	"os"

	"golang.org/x/sys/unix"
)

func prlimitParent() error {
	var have unix.Rlimit
	return unix.Prlimit(os.Getppid(), unix.RLIMIT_CORE, nil, &have)
}
