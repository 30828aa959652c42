package routing

import "regexp/syntax"

// maxExpressions bounds the memory of the regular expressions of one table, in bytes: those of some kilobytes of text can take
// hundreds of megabytes, and here a table is built for each kind of pod.
const maxExpressions = 16 << 20

// expressions estimates the memory that the regular expressions of these routes take, compiled.
func expressions(in *Objects) int {
	total := 0
	add := func(regex *string) {
		if regex == nil {
			return
		}
		if parsed, err := syntax.Parse(*regex, syntax.Perl); err == nil {
			total += memory(parsed)
		}
	}
	for i := range in.Routes {
		for _, r := range in.Routes[i].Spec.Rules {
			for _, m := range r.Matches {
				for _, h := range m.Headers {
					add(h.Regex)
				}
				if m.Model != nil {
					add(m.Model.Regex)
				}
			}
		}
	}
	return total
}

// memory estimates the bytes of a compiled expression. A character class has an entry for each of its ranges, in every step
// that it is repeated to.
func memory(re *syntax.Regexp) int {
	const step, char = 128, 12
	n := step
	if re.Op == syntax.OpLiteral {
		n += step * len(re.Rune)
	} else {
		n += char * len(re.Rune) // the ranges of a class
	}
	for _, sub := range re.Sub {
		n += memory(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}
