package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"remora.dev/remora/sidecar/routing"
)

// plain makes a text one line that a terminal shows as it is: what users wrote in their objects comes back to others in warnings,
// status and events, and must neither move their cursor nor turn the direction of what follows it. White space becomes a space.
func plain(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		switch {
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// maxAlike is how many warnings of one code an object gets in words. A route may have hundreds of rules with the same fault, and
// who has read some of them knows; its status has all.
const maxAlike = 3

// worded words the problems of one object, and only counts those that are like many before.
func worded(problems []routing.Problem) []string {
	total, shown := map[routing.Code]int{}, map[routing.Code]int{}
	for _, p := range problems {
		total[p.Code]++
	}
	var words []string
	for _, p := range problems {
		switch shown[p.Code]++; {
		case shown[p.Code] > maxAlike:
		case shown[p.Code] < maxAlike || total[p.Code] == maxAlike:
			words = append(words, p.String())
		default:
			words = append(words, fmt.Sprintf("%s; and %d more like this", p, total[p.Code]-maxAlike))
		}
	}
	return words
}
