// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// SystemClock is both clocks of this machine. Elapsed counts while the machine is suspended, which Go's own
// monotonic clock does not: a soak over a suspended night would otherwise look like one of a minute.
func SystemClock() func() fleet.Moment {
	boot := "unknown"
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		boot = strings.TrimSpace(string(b))
	}
	return func() fleet.Moment {
		var ts unix.Timespec
		// It can fail only where the kernel has no such clock; Elapsed then stands still, and nothing soaks.
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
		return fleet.Moment{Wall: time.Now(), Elapsed: time.Duration(ts.Nano()), Boot: boot}
	}
}
