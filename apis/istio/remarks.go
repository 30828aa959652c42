package istio

import (
	"slices"
	"strings"
)

// Remark is about a field that an object was written with and that was left out of it.
type Remark struct {
	Field string // a path such as spec.http[0].match[1].uri
	Wrong string // what is wrong with its value; empty: it is a field that the types here do not have
}

// Remarks are those of one object, by field.
type Remarks []Remark

// Sort brings them into the order that In needs.
func (r Remarks) Sort() {
	slices.SortFunc(r, func(a, b Remark) int { return strings.Compare(a.Field, b.Field) })
}

// In tells whether something was left out at a path or below it: what is left there says less than was written, so it must not widen
// what it decides about.
func (r Remarks) In(path string) bool {
	if i, _ := slices.BinarySearchFunc(r, path, byField); i < len(r) && r[i].Field == path {
		return true
	}
	for _, deeper := range []string{path + ".", path + "["} {
		if i, _ := slices.BinarySearchFunc(r, deeper, byField); i < len(r) && strings.HasPrefix(r[i].Field, deeper) {
			return true
		}
	}
	return false
}

func byField(r Remark, path string) int { return strings.Compare(r.Field, path) }

// WrongIn is In for values that could not be read, without the fields that are not known.
func (r Remarks) WrongIn(path string) bool {
	return slices.ContainsFunc(r, func(one Remark) bool {
		rest, found := strings.CutPrefix(one.Field, path)
		return found && one.Wrong != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}
