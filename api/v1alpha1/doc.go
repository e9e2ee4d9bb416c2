// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 answers: what do people write, and what do they read back?
//
// FleetRollout is the team's: one payload for many clusters, stage by stage. FleetMember is the
// platform's: one cluster of the fleet. Every field works; what does not exist yet is not here.
//
// +kubebuilder:object:generate=true
// +groupName=fleet.flotilla.dev
package v1alpha1
