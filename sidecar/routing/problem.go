package routing

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity says what a Problem means for its object.
type Severity int

const (
	// Invalid: the object is refused at admission, and left out where it exists nevertheless.
	Invalid Severity = iota
	// Unresolved: something that the object names is not there yet. It is accepted; requests that need
	// what is missing fail with the same code.
	Unresolved
	// Warning: accepted and running, but probably not what was meant.
	Warning
)

// String gives the word that people read: "invalid", "unresolved" or "warning".
func (s Severity) String() string {
	return [...]string{"invalid", "unresolved", "warning"}[s]
}

// Ref names an object.
type Ref struct {
	Kind, Namespace, Name string
}

// String gives the form "LLMProvider default/qwen".
func (r Ref) String() string {
	return r.Kind + " " + r.Path()
}

// Path is NAMESPACE/NAME, which names an object where its kind is known.
func (r Ref) Path() string { return r.Namespace + "/" + r.Name }

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// Problem is one thing that is wrong with one object.
type Problem struct {
	Object   Ref
	Field    string // a path such as spec.rules[0].backendRefs[1].weight; empty for the object as a whole
	Severity Severity
	Code     Code
	Message  string // what is wrong, and what to do about it; never holds a key
}

// String is how admission, logs and the command line word the problem, after the name of its object:
// the field, the sentence, the code.
func (p Problem) String() string {
	if p.Field == "" {
		return fmt.Sprintf("%s (%s)", p.Message, p.Code)
	}
	return fmt.Sprintf("%s: %s (%s)", p.Field, p.Message, p.Code)
}

// sortProblems brings problems into the order of their objects, worst first, then by field.
func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			compareRefs(a.Object, b.Object),
			cmp.Compare(a.Severity, b.Severity),
			cmp.Compare(a.Field, b.Field),
			cmp.Compare(a.Message, b.Message),
		)
	})
}

// findings collects the problems of one object.
type findings struct {
	object Ref
	list   []Problem
}

func (f *findings) add(s Severity, c Code, field, format string, args ...any) {
	f.list = append(f.list, Problem{
		Object: f.object, Field: field, Severity: s, Code: c, Message: fmt.Sprintf(format, args...),
	})
}

func (f *findings) invalid(c Code, field, format string, args ...any) {
	f.add(Invalid, c, field, format, args...)
}

func (f *findings) warn(c Code, field, format string, args ...any) {
	f.add(Warning, c, field, format, args...)
}

// hasInvalid tells whether there is something wrong with that very field.
func (f *findings) hasInvalid(field string) bool {
	return slices.ContainsFunc(f.list, func(p Problem) bool { return p.Severity == Invalid && p.Field == field })
}

// firstInvalid gives the problem that keeps the object from running, if there is one.
func (f *findings) firstInvalid() *Problem {
	i := slices.IndexFunc(f.list, func(p Problem) bool { return p.Severity == Invalid })
	if i < 0 {
		return nil
	}
	return &f.list[i]
}
