// SPDX-License-Identifier: Apache-2.0

// Package localfleet answers: how does one get a whole real fleet onto this machine?
//
// Clusters are devfleet processes, agents are flotilla-agent processes under their own service
// accounts, the git server is a real one over http. The demo, the examples' tests and the benchmarks
// run on it. Everything listens on loopback and ends with this process.
package localfleet
