// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/specialize"
)

// otherEngine renders other bytes of the same, as an agent of a newer version may.
type otherEngine struct{ turn.Renderer }

// Render is in turn.Renderer.
func (o otherEngine) Render(ctx context.Context, r turn.RenderRequest) (specialize.Manifest, error) {
	m, err := o.Renderer.Render(ctx, r)
	for _, object := range m.Objects {
		body, _ := object.MarshalJSON()
		if err := json.Unmarshal([]byte(strings.ReplaceAll(string(body), `"web:1"`, `"web:other"`)), &object.Object); err != nil {
			return m, err
		}
	}
	m.Digest = fleet.DigestOf("other", m.Digest[:])
	return m, err
}

// What the cluster adds may change without changing what is rendered: a kind is installed, a key is added that
// nobody asks for. That is noted, and is no excuse for other bytes later on: an agent that renders otherwise than
// the one before it leaves what runs as it is, until a release comes.
func TestChangedInputsExcuseNoOtherBytes(t *testing.T) {
	for name, forget := range map[string]bool{"inputs that were noted": false, "a promise of a version that noted none": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, m := range []string{"ams", "fra", "par", "nyc"} {
				w.setValue(m, "1")
			}
			w.respec(`{"specialize": {"postBuild": {"substituteFrom": [{"kind": "ConfigMap", "name": "site"}]}}}`)
			w.git.Commit("main", files("${IMAGE}"))
			w.turns(3 * time.Minute)
			w.want(everyone1)

			nyc := w.site("nyc")
			if forget {
				p, err := nyc.promises.Load(t.Context(), w.name)
				if err != nil {
					t.Fatal(err)
				}
				p.Installed.Inputs, p.LastGood.Inputs = fleet.Digest{}, fleet.Digest{}
				if err := nyc.promises.Save(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			} else {
				nyc.inputs.objects[site1Values]["UNUSED"] = "x"
				w.turns(2 * time.Second)
			}
			writes := nyc.promises.writes
			nyc.restart()
			nyc.Renderer = otherEngine{nyc.Renderer}
			w.turns(5 * time.Second)
			w.want(everyone1)
			trouble := nyc.last.Trouble[v1alpha1.ConditionApplied]
			if fleet.ReasonOf(trouble, "") != v1alpha1.ReasonNotReproducible {
				t.Errorf("nyc says %v", trouble)
			}
			if nyc.promises.writes != writes {
				t.Errorf("%d writes of a promise", nyc.promises.writes-writes)
			}
			nyc.restart() // the agent that rendered it
			w.turns(2 * time.Second)
			w.want(everyone1)
			if trouble := nyc.last.Trouble[v1alpha1.ConditionApplied]; trouble != nil {
				t.Errorf("nyc says %v", trouble)
			}
			w.setValue("nyc", "2")
			w.turns(2 * time.Second)
			w.want("ams=1 fra=1 par=1 nyc=2")
		})
	}
}
