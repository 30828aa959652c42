package routing

import "strconv"

// Label names the rule within its owner: by its name, or as "#2" by its place. A provider's only rule has none.
func (r *Rule) Label() string {
	switch {
	case r.Name != "":
		return r.Name
	case r.number == 0:
		return ""
	case r.number < len(places):
		return places[r.number]
	}
	return place(r.number)
}

func place(n int) string { return "#" + strconv.Itoa(n) }

// places are there so that no call makes its own.
var places = func() (all [65]string) {
	for i := range all {
		all[i] = place(i)
	}
	return all
}()
