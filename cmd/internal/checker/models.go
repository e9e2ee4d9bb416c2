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

// Unchecked are what the design had not tried: members that gave up in several releases at once, with tolerance;
// gates that need more than one success; several seals live.
var Unchecked = []Model{
	{
		Name: "giving up in two releases", Stages: []Shape{{2, 1, 1}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}},
		Limits: Limits{Failures: true},
	},
	{
		Name: "tolerance and a gate in two releases", Stages: []Shape{{1, 1, 0}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}},
		Limits: Limits{Failures: true, Yields: 1},
	},
	twoSuccesses,
	{
		Name: "two successes and a proof", Stages: []Shape{{3, 2, 1}, {1, 1, 0}}, Versions: r1,
		Limits: Limits{Forks: 1}, MinSuccess: 2,
	},
	{
		Name: "three seals", Stages: []Shape{{2, 1, 0}}, Versions: []Version{{1, "r1", false}, {2, "r1", false}, {3, "r2", false}},
	},
	{
		Name: "two seals with stages", Stages: []Shape{{1, 1, 0}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}, {2, "r1", false}},
		Limits: Limits{Failures: true, CarryOvers: true},
	},
}

// Lying are models with members that lie. What holds is counted over the others (docs/rules.md, "Members that lie").
var Lying = []Model{
	liarInWindow,
	{Name: "a liar in a window of two", Stages: []Shape{{4, 2, 1}}, Versions: r1, Limits: Limits{Failures: true, Yields: 1}, Liars: 1},
	{Name: "two liars in a window", Stages: []Shape{{4, 1, 1}}, Versions: r1, Limits: Limits{Failures: true, Yields: 1}, Liars: 2},
	gateOfTwo,
	{Name: "a liar and every view", Stages: []Shape{{2, 1, 0}, {2, 1, 1}}, Versions: r1, Limits: Limits{Failures: true}, Liars: 1, Views: true},
	{Name: "two liars and two successes", Stages: []Shape{{3, 2, 0}, {1, 1, 0}}, Versions: r1, Limits: Limits{Failures: true, Yields: 1}, Liars: 2, MinSuccess: 2},
	{Name: "a liar where a release fails everywhere", Stages: []Shape{{3, 1, 1}, {2, 1, 0}}, Versions: []Version{{1, "r1", true}}, Limits: Limits{Failures: true, Yields: 1}, Liars: 1, MinSuccess: 2},
	{Name: "a liar and two releases", Stages: []Shape{{3, 1, 1}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}}, Liars: 1},
	{Name: "a liar and a stop", Stages: []Shape{{3, 1, 0}}, Versions: r1, Limits: Limits{Stops: 1, Resumes: 1}, Liars: 1},
	twins,
}

// Deep are larger ones: make check-deep goes through them.
var Deep = []Model{
	{Name: "two stages of three", Stages: []Shape{{3, 2, 1}, {3, 1, 1}}, Versions: r1, Limits: Limits{Failures: true}},
	{Name: "giving up in two releases, of three", Stages: []Shape{{3, 1, 1}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}}, Limits: Limits{Failures: true}},
	{Name: "tolerance and a gate in two releases", Stages: []Shape{{2, 1, 1}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}}, Limits: Limits{Failures: true}},
	{Name: "a liar and two releases that fail", Stages: []Shape{{3, 1, 1}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}}, Limits: Limits{Failures: true}, Liars: 1},
	{Name: "two seals with stages of one and two", Stages: []Shape{{1, 1, 0}, {2, 1, 1}}, Versions: []Version{{1, "r1", false}, {2, "r1", false}}, Limits: Limits{Failures: true, CarryOvers: true}},
	{Name: "a liar in a window of two, of five", Stages: []Shape{{5, 2, 1}}, Versions: r1, Limits: Limits{Failures: true}, Liars: 1},
	{Name: "two liars in a window of two, of five", Stages: []Shape{{5, 2, 1}}, Versions: r1, Limits: Limits{Failures: true}, Liars: 2},
}

var r1 = []Version{{1, "r1", false}}

var twoSuccesses = Model{
	Name: "two successes", Stages: []Shape{{3, 2, 1}, {1, 1, 0}}, Versions: r1,
	Limits: Limits{Failures: true, Yields: 1}, MinSuccess: 2,
}

var liarInWindow = Model{Name: "a liar in a window", Stages: []Shape{{4, 1, 1}}, Versions: r1, Limits: Limits{Failures: true}, Liars: 1, EveryWord: true}

var gateOfTwo = Model{Name: "a liar before a gate of two", Stages: []Shape{{2, 1, 0}, {2, 1, 0}}, Versions: r1, Limits: Limits{Failures: true, Yields: 1}, Liars: 1, EveryWord: true}

var twins = Model{Name: "an author's two seals in one position", Stages: []Shape{{3, 1, 0}}, Versions: []Version{{1, "r1", false}, {1, "r1", false}, {2, "r1", false}}}
