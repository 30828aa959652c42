package metrics

// What apps and providers may have shown.
const (
	maxModels = 100 // names of models that are not from the configuration
	maxModel  = 128 // bytes of such a name
	maxSets   = 1000
	other     = "other" // whatever is beyond
)

// names are the models that label sets are about, and those that were let in because of an answer.
type names struct {
	used  map[string]int
	guest map[string]bool
}

func newNames() names { return names{used: map[string]int{}, guest: map[string]bool{}} }

// judge gives the name by which a model is counted, and whether it is a guest: one that is not from the configuration. Those come in only
// with an answer, as a name that a provider took is a model's, and the first of them only.
func (n *names) judge(name string, from origin) (shown string, guest bool) {
	switch {
	case name == "" || n.used[name] > 0:
		return name, n.guest[name]
	case from == configured:
		return clean(name), false
	case from == refused || !isModel(name) || len(n.guest) >= maxModels:
		return other, false
	}
	return name, name != other
}

func (n *names) use(name string, guest bool) {
	if name == "" {
		return
	}
	n.used[name]++
	if guest {
		n.guest[name] = true
	}
}

func (n *names) leave(name string) {
	if name == "" {
		return
	}
	if n.used[name]--; n.used[name] <= 0 {
		delete(n.used, name)
		delete(n.guest, name)
	}
}

// origin is where the name of a model is from.
type origin uint8

const (
	refused    origin = iota // an app, and the provider did not take it
	answered                 // an app or a provider, and there is an answer
	configured               // the configuration
)
