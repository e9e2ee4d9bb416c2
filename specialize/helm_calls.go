// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"slices"
	"strings"
	templates "text/template/parse"
)

// call is one place where a template calls a function.
type call struct {
	function string
	file     string
	line     int
	// pos and end are the offsets of the function's name, and of what follows its last argument; end is 0 where it
	// was not looked for.
	pos, end int
}

func (c call) String() string { return fmt.Sprintf("%s (%s:%d)", c.function, c.file, c.line) }

// calls finds, in one template, the calls of functions that wanted takes. A text that is no template has none:
// the engine says what is wrong with it.
func calls(file, text string, wanted func(function string) bool) []call {
	var found []call
	for _, root := range parseTemplate(file, text) {
		inspect(root, func(n templates.Node) {
			command, isCommand := n.(*templates.CommandNode)
			identifier, isName := n.(*templates.IdentifierNode)
			end := 0
			if isCommand {
				if identifier, isName = command.Args[0].(*templates.IdentifierNode); isName {
					end = endOfCommand(text, int(identifier.Pos))
				}
			}
			if !isName || !wanted(identifier.Ident) {
				return
			}
			pos := int(identifier.Pos)
			if !strings.HasPrefix(text[min(pos, len(text)):], identifier.Ident) {
				return
			}
			found = append(found, call{identifier.Ident, file, 1 + strings.Count(text[:pos], "\n"), pos, end})
		})
	}
	// A command is met before the name that it begins with; the name alone is an argument elsewhere.
	slices.SortStableFunc(found, func(a, b call) int { return a.pos - b.pos })
	return slices.CompactFunc(found, func(a, b call) bool { return a.pos == b.pos })
}

// parseTemplate gives the roots of a text's templates; none where it does not parse.
func parseTemplate(name, text string) []*templates.ListNode {
	if !strings.Contains(text, "{{") {
		return nil
	}
	tree := templates.New(name)
	tree.Mode = templates.SkipFuncCheck
	all := map[string]*templates.Tree{}
	if _, err := tree.Parse(text, "", "", all); err != nil {
		return nil
	}
	var roots []*templates.ListNode
	for _, t := range all {
		if t.Root != nil {
			roots = append(roots, t.Root)
		}
	}
	slices.SortFunc(roots, func(a, b *templates.ListNode) int { return int(a.Pos - b.Pos) })
	return roots
}

// inspect visits a node and all below it.
func inspect(n templates.Node, visit func(templates.Node)) {
	for _, child := range childrenOf(n) {
		visit(child)
		inspect(child, visit)
	}
}

func childrenOf(n templates.Node) []templates.Node {
	switch x := n.(type) {
	case *templates.ListNode:
		if x != nil {
			return x.Nodes
		}
	case *templates.ActionNode:
		return []templates.Node{x.Pipe}
	case *templates.IfNode:
		return branches(x.BranchNode)
	case *templates.WithNode:
		return branches(x.BranchNode)
	case *templates.RangeNode:
		return branches(x.BranchNode)
	case *templates.TemplateNode:
		if x.Pipe != nil {
			return []templates.Node{x.Pipe}
		}
	case *templates.PipeNode:
		var commands []templates.Node
		for _, c := range x.Cmds {
			commands = append(commands, c)
		}
		return commands
	case *templates.CommandNode:
		return x.Args
	case *templates.ChainNode:
		return []templates.Node{x.Node}
	}
	return nil
}

func branches(b templates.BranchNode) []templates.Node {
	all := []templates.Node{b.Pipe, b.List}
	if b.ElseList != nil {
		all = append(all, b.ElseList)
	}
	return all
}

// endOfCommand is the offset of what follows a command's last argument: a |, a bracket or the end of the action.
func endOfCommand(text string, pos int) int {
	depth, end := 0, pos
	for i := pos; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' || c == '\'' || c == '`':
			i = endOfQuote(text, i)
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0 && (c == '|' || c == ')' || strings.HasPrefix(text[i:], "}}") || strings.HasPrefix(text[i:], "-}}")):
			return end
		case strings.IndexByte(" \t\r\n", c) >= 0:
			continue
		}
		end = i + 1
	}
	return end
}

// endOfQuote is the offset of the quote that closes the one at start.
func endOfQuote(text string, start int) int {
	for i := start + 1; i < len(text); i++ {
		if text[i] == '\\' && text[start] != '`' {
			i++
		} else if text[i] == text[start] {
			return i
		}
	}
	return len(text) - 1
}

// edit replaces the text from pos to end.
type edit struct {
	pos, end int
	text     string
}

// apply does the edits, which do not overlap.
func apply(text string, edits []edit) string {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.pos - b.pos })
	var b strings.Builder
	at := 0
	for _, e := range edits {
		b.WriteString(text[at:e.pos])
		b.WriteString(e.text)
		at = e.end
	}
	b.WriteString(text[at:])
	return b.String()
}
