// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"slices"
	"strings"
	templates "text/template/parse"
)

// maxRepeated is how often a template may have something done, by the numbers that stand in it: as many values as
// a manifest may have. What numbers the values give it cannot be seen here; see docs/decisions/0005.
const maxRepeated = maxValues

// checkRepetition refuses a template whose own numbers make it too large.
func checkRepetition(file, text string) error {
	for _, root := range parseTemplate(file, text) {
		if worst := repetition(root, 1); worst.times > maxRepeated {
			return tooLarge("%s:%d: this is done over %d times", file, 1+strings.Count(text[:min(worst.pos, len(text))], "\n"), maxRepeated)
		}
	}
	return nil
}

// repeated is how often something is done, and where that is written.
type repeated struct{ times, pos int }

// repetition finds what is done most often below a node that is itself done some times.
func repetition(n templates.Node, times int) repeated {
	worst := repeated{times, int(n.Position())}
	for _, child := range childrenOf(n) {
		found := repeated{times, int(child.Position())}
		pipe, isPipe := child.(*templates.PipeNode)
		loop, isLoop := n.(*templates.RangeNode)
		switch {
		case isPipe:
			found.times = product(times, growthOf(pipe))
		case isLoop && child == templates.Node(loop.List):
			found = repetition(child, product(times, rounds(loop.Pipe)))
		default:
			found = repetition(child, times)
		}
		if found.times > worst.times {
			worst = found
		}
	}
	return worst
}

func product(a, b int) int {
	if b > 0 && a > maxRepeated/b {
		return maxRepeated + 1
	}
	return a * max(b, 1)
}

// repeaters are the functions whose first number says how often; their last argument is what is repeated.
var repeaters = []string{
	"until", "repeat", "indent", "nindent", "randAlphaNum", "randAlpha", "randAscii", "randNumeric", "randBytes", "seq", "untilStep",
}

// growthOf is how many times longer than its input a pipeline's result is, at most, by its own numbers: repeat 1000
// (repeat 1000 "x") is a million.
func growthOf(pipe *templates.PipeNode) int {
	total := 1
	for _, command := range pipe.Cmds {
		argument := 1
		for _, a := range command.Args {
			if inner, isPipe := a.(*templates.PipeNode); isPipe {
				argument = max(argument, growthOf(inner))
			}
		}
		total = product(product(total, ownGrowth(command)), argument)
	}
	return total
}

func ownGrowth(command *templates.CommandNode) int {
	name, isName := command.Args[0].(*templates.IdentifierNode)
	if !isName || !slices.Contains(repeaters, name.Ident) {
		return 1
	}
	numbers := make([]int, 0, len(command.Args))
	for _, argument := range command.Args[1:] {
		if n, is := constant(argument); is {
			numbers = append(numbers, n)
		}
	}
	switch {
	case len(numbers) == 0:
		return 1
	case name.Ident == "seq" || name.Ident == "untilStep":
		return max(1, slices.Max(numbers)-slices.Min(numbers)) // a step of one is the most there can be
	}
	return numbers[0]
}

// rounds is how often a range goes round by a number that stands in it: range 10. Functions are growthOf's.
func rounds(pipe *templates.PipeNode) int {
	if len(pipe.Cmds) == 1 && len(pipe.Cmds[0].Args) == 1 {
		n, _ := constant(pipe.Cmds[0].Args[0])
		return n
	}
	return growthOf(pipe)
}

// constant is a whole number that stands in a template, in brackets or not.
func constant(n templates.Node) (int, bool) {
	switch x := n.(type) {
	case *templates.NumberNode:
		return min(int(x.Int64), maxRepeated+1), x.IsInt
	case *templates.PipeNode:
		if len(x.Cmds) == 1 && len(x.Cmds[0].Args) == 1 {
			return constant(x.Cmds[0].Args[0])
		}
	}
	return 0, false
}
