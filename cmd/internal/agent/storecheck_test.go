// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"

	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// TestDamagedStoreIsTold: an agent that begins anew says so in its log and its metrics.
func TestDamagedStoreIsTold(t *testing.T) {
	w := newWorld(t)
	ams := export(t, w.site("ams"))
	ams.want("flotilla_store_recovered_total", "0")
	var log strings.Builder
	logger := funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{})
	path := filepath.Join(t.TempDir(), storeFile)
	open := func() {
		t.Helper()
		s, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		ams.metrics.Opened(s.Opened())
		tellOpened(logger, s.Opened())
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	open()
	ams.want("flotilla_store_recovered_total", "0")
	if log.Len() > 0 {
		t.Errorf("of a new store: %s", log.String())
	}
	if err := os.WriteFile(path, []byte("no store any more"), 0o600); err != nil {
		t.Fatal(err)
	}
	open()
	ams.want("flotilla_store_recovered_total", "1")
	if !strings.Contains(log.String(), "begun anew") || !strings.Contains(log.String(), path+".corrupt-1") {
		t.Errorf("log: %s", log.String())
	}
	log.Reset()
	tellOpened(logger, store.Opened{Behind: true, Compacted: 17})
	if !strings.Contains(log.String(), "written last may be missing") || !strings.Contains(log.String(), `"freed"=17`) {
		t.Errorf("log: %s", log.String())
	}
	var none *Metrics
	none.Opened(store.Opened{Recovered: true})
}
