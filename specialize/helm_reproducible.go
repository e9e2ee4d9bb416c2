// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// A chart may call what it wants, as long as what it renders is the same each time: each member renders by itself,
// and renders again whenever it looks for drift. So every chart is rendered twice, the second time in another world:
// random functions differ by themselves, the clock stands at another instant, and whatever is looked up is there.
// The other world is made by changing the templates, because Helm lets nobody change its functions.

// What a call becomes in the second look. Each text stands where the function's name stood and takes its arguments;
// none has a line break, so that lines stay what they were, and each can be told from what people write.
const (
	// anInstant is now.
	anInstant = "(toDate `2006-01-02T15:04:05Z07:00` `2001-02-03T04:05:06Z`)"
	// anObject is lookup: the arguments follow as two more entries.
	anObject = "dict `metadata` (dict `name` `invented` `namespace` `invented` `labels` (dict `invented` `invented`) `annotations` dict) " +
		"`data` (dict `invented` `aW52ZW50ZWQ=`) `items` (list (dict `metadata` (dict `name` `invented` `namespace` `invented`) `data` dict)) `kind` `Invented`"
	anAge  = "include `fleet.flotilla.dev/ago`"
	aRound = "include `fleet.flotilla.dev/durationRound`"
	aDate  = " | include `fleet.flotilla.dev/date`"
)

// secondLook holds the templates that the texts above include. They do what the functions do, but for what these
// take from the clock and from the machine's time zones, of which UTC is the one that every machine knows.
const secondLook = "{{- define `fleet.flotilla.dev/ago` -}}" +
	"{{ if has (kindOf .) (list `struct` `int` `int64`) }}a while ago{{ else }}0s{{ end }}" +
	"{{- end -}}" +
	"{{- define `fleet.flotilla.dev/durationRound` -}}" +
	"{{ if kindIs `struct` . }}a while{{ else }}{{ durationRound . }}{{ end }}" +
	"{{- end -}}" +
	"{{- define `fleet.flotilla.dev/date` -}}" +
	"{{- if has (kindOf (index . 1)) (list `struct` `ptr` `int` `int32` `int64`) }}{{ dateInZone (index . 0) (index . 1) `UTC` }}" +
	"{{ else }}{{ dateInZone (index . 0) " + anInstant + " `UTC` }}{{ end -}}" +
	"{{- end -}}"

// functions that may give something else each time, by why.
const (
	byChance = iota
	byClock
	byLookup
	byOrder // of a mapping's keys, which Go leaves to chance
)

var fickle = map[string]int{
	"randAlphaNum": byChance, "randAlpha": byChance, "randAscii": byChance, "randNumeric": byChance,
	"randInt": byChance, "randBytes": byChance, "shuffle": byChance, "uuidv4": byChance,
	"genPrivateKey": byChance, "genCA": byChance, "genCAWithKey": byChance, "genSelfSignedCert": byChance,
	"genSelfSignedCertWithKey": byChance, "genSignedCert": byChance, "genSignedCertWithKey": byChance,
	"encryptAES": byChance, "htpasswd": byChance, "bcrypt": byChance,
	"now": byClock, "ago": byClock, "date": byClock, "htmlDate": byClock, "dateInZone": byClock,
	"date_in_zone": byClock, "htmlDateInZone": byClock, "durationRound": byClock,
	"lookup": byLookup,
	"keys":   byOrder, "values": byOrder,
}

func isFickle(function string) bool {
	_, is := fickle[function]
	return is
}

// fickleCalls are those of one template. Keys that are sorted at once are none.
func fickleCalls(file, text string) []call {
	return slices.DeleteFunc(calls(file, text, isFickle), func(c call) bool {
		then, piped := strings.CutPrefix(strings.TrimSpace(text[max(c.pos, c.end):]), "|")
		return fickle[c.function] == byOrder && piped && strings.HasPrefix(strings.TrimSpace(then), "sortAlpha")
	})
}

// callsFor are the calls of functions that are fickle for one reason.
func callsFor(found []call, why int) []call {
	return slices.DeleteFunc(slices.Clone(found), func(c call) bool {
		reason := fickle[c.function]
		return reason != why && (why != byChance || reason != byOrder) // order is by chance as well
	})
}

// reasons takes functions by why they are fickle.
type reasons func(why int) bool

func anyReason(int) bool { return true }

// take says whether a function is one of those.
func (r reasons) take(function string) bool { return isFickle(function) && r(fickle[function]) }

// disturbed is a template for the second look.
func disturbed(text string, why reasons) string {
	var edits []edit
	for _, c := range calls("", text, why.take) {
		name := func(instead string) { edits = append(edits, edit{c.pos, c.pos + len(c.function), instead}) }
		dated := func(instead string) {
			name(instead)
			edits = append(edits, edit{c.end, c.end, aDate})
		}
		switch c.function {
		case "now":
			name(anInstant)
		case "lookup":
			name(anObject)
		case "ago":
			name(anAge)
		case "durationRound":
			name(aRound)
		case "date", "dateInZone", "date_in_zone":
			dated("list")
		case "htmlDate", "htmlDateInZone":
			dated("list `2006-01-02`")
		}
	}
	return apply(text, edits)
}

// disturbedData is a text of the values or of a file beside the templates, which may be given to tpl and is a
// template then. Where it is none, undisturb finds it again in what was rendered.
func disturbedData(text string, why reasons) string {
	var edits []edit
	for _, c := range calls("", text, why.take) {
		if instead, is := inData[c.function]; is {
			edits = append(edits, edit{c.pos, c.pos + len(c.function), instead})
		}
	}
	return apply(text, edits)
}

var inData = map[string]string{"now": anInstant, "lookup": anObject, "ago": anAge, "durationRound": aRound}

// undisturbed finds again what disturbedData changed, in what was no template after all.
var undisturbed = func() *strings.Replacer {
	var pairs []string
	for _, function := range slices.Sorted(maps.Keys(inData)) {
		pairs = append(pairs, inData[function], function)
	}
	return strings.NewReplacer(pairs...)
}()

// disturbValues puts every text of the values through disturbedData, in place.
func disturbValues(value any, why reasons) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			v[key] = disturbValues(v[key], why)
		}
	case []any:
		for i := range v {
			v[i] = disturbValues(v[i], why)
		}
	case string:
		if strings.Contains(v, "{{") {
			return disturbedData(v, why)
		}
	}
	return value
}

// looks is how often a chart is rendered: an order that is left to chance is the same by chance every other time.
func looks(found []call) int {
	if slices.ContainsFunc(found, func(c call) bool { return fickle[c.function] == byOrder }) {
		return 8
	}
	return 2
}

// change is what two looks at a chart differ in: in which of its templates, and what.
type change struct{ file, what string }

// difference says where two looks at a chart differ in what is delivered; nothing where they do not. Comments, notes
// and hooks that are left out may differ.
func difference(first, second rendered, hooks string) (change, bool) {
	for _, file := range slices.Sorted(maps.Keys(first)) {
		again := undisturbed.Replace(second[file])
		if first[file] == second[file] || first[file] == again {
			continue
		}
		now, err := delivered(file, first[file], hooks)
		if err != nil {
			continue // which is said when the objects are read
		}
		then, err := delivered(file, again, hooks)
		if err != nil {
			return change{file, "what it renders is an object only sometimes"}, true
		}
		if what, is := changed(now, then); is {
			return change{file, what}, true
		}
	}
	return change{}, false
}

// changed says which field of the objects of two looks is another.
func changed(now, then []object) (what string, is bool) {
	if len(now) != len(then) {
		return "it renders other objects each time", true
	}
	for i, o := range now {
		field, is := differs("", o.fields, then[i].fields)
		switch {
		case !is:
			continue
		case field == "metadata.name":
			return fmt.Sprintf("the name of a %v is something else each time", o.fields["kind"]), true
		}
		return fmt.Sprintf("%s of %s is something else each time", cmp.Or(field, "all"), o.title()), true
	}
	return "", false
}

// delivered are the objects of one text without the hooks that are left out.
func delivered(file, text, hooks string) ([]object, error) {
	objects, err := objectsOfText(newTree(nil), file, text, false) // which has bounds of its own
	return slices.DeleteFunc(objects, func(o object) bool {
		h, err := hookOf(o)
		return err == nil && h.place != amid && (h.place == never || hooks == v1alpha1.HooksIgnore)
	}), err
}

// differs gives the path of the first field in which two values differ, which hold something else each time and
// are not to be repeated: they may be passwords.
func differs(at string, a, b any) (path string, is bool) {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			return at, true
		}
		for _, key := range slices.Sorted(maps.Keys(x)) {
			if _, has := y[key]; !has {
				return join(at, key), true
			}
			if found, is := differs(join(at, key), x[key], y[key]); is {
				return found, true
			}
		}
		if len(x) != len(y) {
			return at, true
		}
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return at, true
		}
		for i := range x {
			if found, is := differs(fmt.Sprintf("%s[%d]", at, i), x[i], y[i]); is {
				return found, true
			}
		}
	default:
		if a != b {
			return at, true
		}
	}
	return "", false
}

func join(at, key string) string { return strings.TrimPrefix(at+"."+clip(key), ".") }

// notReproducible names the calls that may be why: those in the file first.
func notReproducible(c change, found []call) error {
	found = slices.Clone(found)
	slices.SortStableFunc(found, func(a, b call) int {
		rank := func(of call) int {
			n := fickle[of.function]
			if of.file != c.file {
				n += len(fickle)
			}
			return n
		}
		return rank(a) - rank(b)
	})
	var names []string
	for _, call := range found {
		names = append(names, call.String())
	}
	why := "no template calls what could be why, so it is in a text that a template is made of"
	if len(names) > 0 {
		why = "the chart calls " + list(slices.Compact(names))
	}
	return hinted(v1alpha1.ReasonNotReproducible, advice(found), "%s: %s; %s", c.file, c.what, why)
}

// advice is what to do about the first of the calls.
func advice(found []call) string {
	if len(found) == 0 {
		return "each member renders by itself, so each would run something else"
	}
	switch fickle[found[0].function] {
	case byClock:
		return "leave the time out, or give it in the values; dates are those of UTC"
	case byLookup:
		return "give in the values what the chart looks up; while rendering there is no cluster to look into"
	case byOrder:
		return "put it in order: keys .Values.x | sortAlpha"
	}
	return "give in the values what the chart would make up: it then takes that, if it has a value for it"
}
