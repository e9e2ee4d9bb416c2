// SPDX-License-Identifier: Apache-2.0

// Package readapi answers: what does one member know of the fleet, as others may read it?
//
// Summaries are in the objects' status, where kubectl finds them. What grows with the fleet (member
// by member, with evidence and explanations) is here: a small, versioned JSON API over HTTPS that
// every agent serves and that the command line shares with whatever else wants to show a rollout.
// It only reads. Whoever asks is known by their Kubernetes identity, and may see what the member's
// own API server would let them see.
//
// build.go decides what is said, and is pure; server.go, auth.go, tls.go and client.go carry it.
package readapi
