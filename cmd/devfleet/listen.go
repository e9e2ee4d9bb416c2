// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// listen opens the API server's port: the one in ports.json, or on the first start a free one that is written there.
// The open listener itself is handed to the API server, so nobody can take the port in between.
func (f folder) listen() (net.Listener, error) {
	p, known, err := f.readPorts()
	if err != nil {
		return nil, err
	}
	if known {
		l, err := net.Listen("tcp4", loopback(p.API))
		if err != nil {
			return nil, fmt.Errorf("member %s: port %d, where it answered before, is taken: %w: "+
				"stop the program that listens there, or remove %s to have a port picked anew (clients then need the new kubeconfig)",
				f.name, p.API, err, f.path("ports.json"))
		}
		return l, nil
	}
	l, err := listenAnywhere(firstEphemeral("/proc/sys/net/ipv4/ip_local_port_range"))
	if err != nil {
		return nil, fmt.Errorf("member %s: no free port: %w", f.name, err)
	}
	if err := f.writePorts(ports{API: l.Addr().(*net.TCPAddr).Port}); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// listenAnywhere prefers ports below those that the kernel gives to outgoing connections: while the member is down,
// any client's connection could sit on a port of that range and the member could not come back.
func listenAnywhere(ephemeral int) (net.Listener, error) {
	const lowest, tries = 20000, 50
	for range tries {
		if ephemeral <= lowest {
			break
		}
		if l, err := net.Listen("tcp4", loopback(lowest+rand.IntN(ephemeral-lowest))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp4", loopback(0))
}

// firstEphemeral is the lowest port that the kernel gives to outgoing connections; 0 if it does not say.
func firstEphemeral(file string) int {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	var first, last int
	if _, err := fmt.Sscan(string(raw), &first, &last); err != nil {
		return 0
	}
	return first
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
