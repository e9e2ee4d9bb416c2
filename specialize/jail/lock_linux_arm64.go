// SPDX-License-Identifier: Apache-2.0

package jail

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

var allowedHere []uintptr
