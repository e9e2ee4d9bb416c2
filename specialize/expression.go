// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/env"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Bounds of one expression.
const (
	// maxExpression is its length, as in the API.
	maxExpression = 1024
	// maxExpressionCost is CEL's own unit: about one per operation, and one for ten bytes of text.
	maxExpressionCost = 100_000
	// maxVariable is how many bytes it may give.
	maxVariable = 16 << 10
)

// What an expression sees of the member.
const (
	celName   = "cluster.name"
	celZone   = "cluster.zone"
	celLabels = "cluster.labels"
)

// expressions is what CEL may use here: no time, whose time zones are a machine's own, and no types but plain ones.
var expressions = sync.OnceValues(func() (*cel.Env, error) { //nolint:gochecknoglobals // built once, never changed
	var without []*env.Function
	for _, name := range []string{
		"timestamp", "duration", "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate",
		"getDayOfWeek", "getHours", "getMinutes", "getSeconds", "getMilliseconds",
	} {
		without = append(without, env.NewFunction(name))
	}
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{ExcludeFunctions: without})),
		ext.Strings(ext.StringsVersion(4)),
		cel.Variable(celName, cel.StringType),
		cel.Variable(celZone, cel.StringType),
		cel.Variable(celLabels, cel.MapType(cel.StringType, cel.StringType)),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(maxDepth),
	)
})

// expression is a variable ready to be asked for.
type expression struct {
	name    string
	program cel.Program
}

// refuse is an error of the variable.
func (e expression) refuse(format string, args ...any) error {
	return failure(v1alpha1.ReasonInvalid, "spec.specialize.variables[%s]: %w", e.name, fmt.Errorf(format, args...))
}

// compile reads a variable's expression.
func compile(v v1alpha1.Variable) (expression, error) {
	e := expression{name: v.Name}
	environment, err := expressions()
	if err != nil {
		return e, fmt.Errorf("CEL: %w", err)
	}
	ast, issues := environment.Compile(v.Expression)
	if wrong := issues.Errors(); len(wrong) > 0 {
		at := wrong[0].Location
		return e, e.refuse("line %d, column %d: %s; it sees cluster.name, cluster.zone and cluster.labels",
			at.Line(), at.Column()+1, clip(strings.TrimSuffix(strings.Join(strings.Fields(wrong[0].Message), " "), " (in container '')")))
	}
	switch ast.OutputType() {
	case cel.StringType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType:
	default:
		return e, e.refuse("it gives %s; text, a number or a bool is wanted", ast.OutputType())
	}
	e.program, err = environment.Program(ast, cel.CostLimit(maxExpressionCost))
	if err != nil {
		return e, e.refuse("%w", err)
	}
	return e, nil
}

// of is the variable's value for a member, as text.
func (e expression) of(m fleet.Member) (string, error) {
	result, _, err := e.program.Eval(map[string]any{
		celName: string(m.Name), celZone: m.Zone,
		celLabels: inOrder{types.NewStringStringMap(types.DefaultTypeAdapter, m.Labels), m.Labels},
	})
	if err != nil {
		if key, missing := strings.CutPrefix(err.Error(), "no such key: "); missing {
			return "", hinted(v1alpha1.ReasonVariableUnknown,
				fmt.Sprintf("for members without it: %[1]q in cluster.labels ? cluster.labels[%[1]q] : \"...\"", key),
				"spec.specialize.variables[%s]: %w", e.name, noLabel(m, key))
		}
		return "", e.refuse("%s: %s", m.Name, clip(err.Error()))
	}
	text, err := textOf(result)
	if err != nil {
		return "", e.refuse("%s: %w", m.Name, err)
	}
	return text, nil
}

// textOf is a result as people write it.
func textOf(result ref.Val) (string, error) {
	switch v := result.(type) {
	case types.String:
		if len(v) > maxVariable {
			return "", fmt.Errorf("it gives over %d KiB", maxVariable>>10)
		}
		return string(v), nil
	case types.Int:
		return strconv.FormatInt(int64(v), 10), nil
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), nil
	case types.Double:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return "", errors.New("it gives a number that nobody can write down")
		}
		return strconv.FormatFloat(float64(v), 'f', -1, 64), nil
	case types.Bool:
		return strconv.FormatBool(bool(v)), nil
	}
	return "", fmt.Errorf("it gives %s; text, a number or a bool is wanted", result.Type().TypeName())
}

// inOrder is the member's labels, which are gone through in the order of their keys: Go's own order is another each time.
type inOrder struct {
	traits.Mapper
	labels map[string]string
}

// Iterator goes through the keys.
func (o inOrder) Iterator() traits.Iterator {
	return types.NewStringList(types.DefaultTypeAdapter, slices.Sorted(maps.Keys(o.labels))).Iterator()
}
