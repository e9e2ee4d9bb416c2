// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// TestLargeHistory fetches histories of so many MiB, of files that do not compress, and says what it took:
// FLOTILLA_LARGE_HISTORY=500 go test -run TestLargeHistory -v ./source/git
func TestLargeHistory(t *testing.T) {
	mib, err := strconv.Atoi(os.Getenv("FLOTILLA_LARGE_HISTORY"))
	if err != nil {
		t.Skip("it takes a minute and a gigabyte: set FLOTILLA_LARGE_HISTORY to a number of MiB")
	}
	for _, file := range []int{1 << 20, 8 << 10} {
		t.Run(fmt.Sprintf("%d MiB of %d KiB", mib, file>>10), func(t *testing.T) { largeHistory(t, mib<<20, file) })
	}
}

func largeHistory(t *testing.T, bytes, file int) {
	o, m := newModern(t), newMirrors(t, Limits{})
	o.importNoise(bytes/file, file)
	src := o.src()
	src.Timeout = &v1alpha1.Duration{Duration: metav1.Duration{Duration: 10 * time.Minute}}
	runtime.GC()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Logf("the high-water mark is that of the whole test: %v", err)
	}
	before := highWater(t)
	stop, heap := make(chan struct{}), uint64(0)
	var sampling sync.WaitGroup
	sampling.Go(func() { heap = highestHeap(stop) })
	start := time.Now()
	_, err := m.Latest(t.Context(), src)
	took := time.Since(start)
	close(stop)
	sampling.Wait()
	t.Logf("%v, %.1f s; VmHWM %d MiB, %d before; heap at most %d MiB", err, took.Seconds(), highWater(t)>>10, before>>10, heap>>20)
	if err != nil {
		// Over the limit it has to say so.
		if bytes < 500<<20 || fleet.ReasonOf(err, "") != v1alpha1.ReasonTooLarge {
			t.Error(err)
		}
		return
	}
	start = time.Now()
	latest(t, m, src)
	t.Logf("unchanged: %v", time.Since(start))
}

// importNoise makes a history of so many files, ten to a commit, each in the place of an older one.
func (o *origin) importNoise(count, size int) {
	o.t.Helper()
	cmd := exec.Command("git", "-c", "core.compression=0", "-c", "pack.compression=0", "fast-import", "--quiet")
	cmd.Dir = o.dir
	in, err := cmd.StdinPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	w, noise := bufio.NewWriterSize(in, 1<<20), rand.NewChaCha8([32]byte{1})
	for i := range count {
		if i%10 == 0 {
			fmt.Fprintf(w, "commit refs/heads/main\ncommitter Ada <ada@example.com> %d +0000\ndata 6\nchange\n", 1_700_000_000+i)
		}
		fmt.Fprintf(w, "M 100644 inline d%d/f%d\ndata %d\n", i%100, i%10, size)
		if _, err := io.CopyN(w, noise, int64(size)); err != nil {
			o.t.Fatal(err)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		o.t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		o.t.Fatal(err)
	}
}

// highWater is the most memory that this process had, in KiB.
func highWater(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func highestHeap(stop <-chan struct{}) (highest uint64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return highest
		case <-tick.C:
			metrics.Read(sample)
			highest = max(highest, sample[0].Value.Uint64())
		}
	}
}
