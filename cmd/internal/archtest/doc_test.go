// SPDX-License-Identifier: Apache-2.0

package archtest

import "testing"

// manners of writing code.
var manners = []manner{
	{
		name: "licence", check: licensed,
		because: "a file is copied alone, and then has to say what may be done with it",
	},
	{
		name: "package-comment", check: onePackageComment,
		because: "one place says what question the package answers; two would answer differently",
	},
	{
		name: "documented", check: allDocumented,
		because: "whoever calls it sees the comment and not the code",
	},
	{
		name: "short-functions", check: shortFunctions,
		because: "what does not fit on a screen is not read as a whole",
	},
	{
		name: "few-parameters", check: fewParameters,
		because: "beyond five nobody knows at the call which is which: make it a struct",
	},
	{
		name: "small-interfaces", check: smallInterfaces,
		because: "every method is one more that each fake and each wrapper has to have",
	},
	{
		name: "no-context-in-structs", check: noContextInStructs,
		because: "nobody can say whose lifetime it is",
	},
	{
		name: "no-naked-sleep", check: noNakedSleep,
		because: "it is too long on a fast machine and too short on a slow one: use a virtual clock, or poll with a deadline",
	},
	{
		name: "no-machine-paths", check: noMachinePaths,
		because: "it works on one machine",
	},
	{
		name: "finished", check: unfinished,
		because: "what is not done is not in the code, the API or the docs",
	},
}

func mannerFindings(t *tree) []finding {
	var found []finding
	for _, m := range manners {
		found = append(found, m.find(t)...)
	}
	return found
}

func TestManners(t *testing.T) {
	for _, f := range mannerFindings(repository(t)) {
		t.Error(f)
	}
}

// Every rule finds what breaks it, and nothing else.
func TestMannersCanFail(t *testing.T) {
	var names []string
	for _, m := range manners {
		names = append(names, m.name)
	}
	brokenTrees(t, "style", names, mannerFindings)
}
