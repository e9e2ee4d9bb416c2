// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"strings"
)

// opening of a variable in a text.
const opening = "${"

// expand puts value(inner) in the place of every ${inner} of a text, and ${ in that of $${. Of several dollars
// before a brace each pair is one, as in Flux; those before anything else stay as they are. What was put in is not
// looked at again.
func expand(text string, value func(inner string) (string, error)) (string, error) {
	var b strings.Builder
	for rest := text; ; {
		at := strings.Index(rest, opening)
		if at < 0 {
			b.WriteString(rest)
			return b.String(), nil
		}
		dollars := at + 1 - len(strings.TrimRight(rest[:at], "$"))
		b.WriteString(rest[:at+1-dollars+dollars/2])
		rest = rest[at+len(opening):]
		if dollars%2 == 0 {
			b.WriteByte('{')
			continue
		}
		inner, after, closed := cutBrace(rest)
		if !closed {
			return "", fmt.Errorf("${%s has no closing }", clip(firstLine(rest)))
		}
		v, err := value(inner)
		if err != nil {
			return "", err
		}
		b.WriteString(v)
		rest = after
	}
}

// cutBrace cuts what follows a ${ at the brace that closes it.
func cutBrace(s string) (inner, after string, closed bool) {
	depth := 1
	for i := range len(s) {
		switch {
		case s[i] == '}':
			if depth--; depth == 0 {
				return s[:i], s[i+1:], true
			}
		case strings.HasPrefix(s[i:], opening):
			depth++
		}
	}
	return "", "", false
}
