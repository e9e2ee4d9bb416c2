// SPDX-License-Identifier: Apache-2.0

package checker

// Sound are models in which the rules must hold in every state.
var Sound = []Model{
	oneStage, giveUps, canary, leavers, releases, stopping, crashes,
	{
		Name: "every view of two stages", Stages: []Shape{{2, 1, 1}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Failures: true, Yields: 1}, Views: true,
	},
	{
		Name: "forked", Stages: []Shape{{3, 1, 1}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Failures: true, Forks: 1},
	},
	{
		Name: "two at a time", Stages: []Shape{{4, 2, 1}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Failures: true, Yields: 1},
	},
	{
		Name: "two stages", Stages: []Shape{{2, 1, 1}, {2, 2, 0}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Failures: true, Yields: 1, CarryOvers: true},
	},
	{
		Name: "fails everywhere", Stages: []Shape{{3, 1, 1}, {1, 1, 0}}, Versions: []Version{{1, "r1", true}},
		Limits: Limits{Failures: true, Yields: 1},
	},
	{
		Name: "two releases", Stages: []Shape{{2, 1, 0}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}},
		Limits: Limits{Losses: 1},
	},
	{
		Name: "two seals", Stages: []Shape{{2, 1, 0}}, Versions: []Version{{1, "r1", false}, {2, "r1", false}, {2, "r2", false}},
	},
	{
		Name: "rebuilt", Stages: []Shape{{2, 1, 1}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Failures: true, Yields: 1, Rebuilds: 1}, Views: true,
	},
}
