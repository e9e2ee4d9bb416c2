// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

func TestConfigRefusesAddresses(t *testing.T) {
	const id = "12D3KooWEGMNR8y4CqAZ7FbQMvSj297fsaSvXwy7zzQHK7KCs8tj"
	for name, c := range map[string]struct {
		peers, announce []string
		want            string
	}{
		"none":               {},
		"good ones":          {peers: []string{"/dnsaddr/a.example/p2p/" + id}, announce: []string{"/dns4/a.example/udp/4001/quic-v1"}},
		"a peer without ID":  {peers: []string{"/ip4/192.0.2.1/tcp/4001"}, want: "--peer: "},
		"a host and a port":  {peers: []string{"a.example:4001"}, want: "--peer: "},
		"where it listens":   {announce: []string{"/ip4/0.0.0.0/tcp/4001"}, want: "announce where others reach it"},
		"announced, no port": {announce: []string{"/ip4/192.0.2.1"}, want: "--announce: "},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Kube, cfg.Fleet, cfg.MembersDir = &rest.Config{}, "demo", "members"
			cfg.Peers, cfg.Announce = c.peers, c.announce
			err := cfg.check()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
