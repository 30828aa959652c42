package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// board is what is used of Grafana's schema of dashboards, and nothing else may be in one: what Grafana does not know it forgets
// without a word.
type board struct {
	UID, Title, Description, Refresh, Timezone string
	Tags                                       []string
	SchemaVersion, Version, GraphTooltip       int
	Editable                                   bool
	Time                                       struct{ From, To string }
	Annotations                                struct{ List []any }
	Links                                      []struct {
		Title, Type                       string
		Tags                              []string
		AsDropdown, IncludeVars, KeepTime bool
	}
	Templating struct{ List []variable }
	Panels     []panel
}

type source struct{ Type, UID string }

type variable struct {
	Name, Label, Type, Definition, AllValue string
	Query                                   any
	Datasource                              source
	Current                                 map[string]any
	Hide, Refresh, Sort                     int
	Multi, IncludeAll                       bool
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	Datasource               source
	FieldConfig              struct {
		Defaults struct {
			Unit, NoValue string
			Min           *float64
			Color         map[string]any
			Custom        map[string]any
			Thresholds    map[string]any
		}
		Overrides []any
	}
	Options         map[string]any
	Transformations []any
	Collapsed       bool
	Panels          []any
	Targets         []struct {
		RefID, Expr, LegendFormat, Format string
		Datasource                        source
		Instant, Range                    bool
	}
}

func dashboards(t *testing.T) (all []board) {
	t.Helper()
	files, err := filepath.Glob(root + "config/monitoring/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no dashboards (%v)", err)
	}
	for _, file := range files {
		var b board
		d := json.NewDecoder(bytes.NewReader([]byte(read(t, file))))
		d.DisallowUnknownFields()
		if err := d.Decode(&b); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if b.UID != "remora-"+strings.TrimSuffix(filepath.Base(file), ".json") {
			t.Errorf("%s has the uid %s", file, b.UID)
		}
		all = append(all, b)
	}
	return all
}

// query is one of a panel, of a variable, or of a rule.
type query struct{ where, expr string }

func (b board) queries() (all []query) {
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			all = append(all, query{fmt.Sprintf("%s, panel %q", b.Title, p.Title), target.Expr})
		}
	}
	for _, v := range b.Templating.List {
		if metric := regexp.MustCompile(`^label_values\((.*), ([a-z]+)\)$`).FindStringSubmatch(v.Definition); metric != nil {
			all = append(all, query{fmt.Sprintf("%s, variable %s", b.Title, v.Name), "count by (" + metric[2] + ") (" + metric[1] + ")"})
		}
	}
	return all
}

var units = map[string]bool{"reqps": true, "ops": true, "s": true, "short": true, "percentunit": true, "bytes": true}

func TestEachPanelSaysWhatItShowsAndHasAPlace(t *testing.T) {
	for _, b := range dashboards(t) {
		taken, ids := map[[2]int]string{}, map[int]bool{}
		for _, p := range b.Panels {
			if ids[p.ID] || p.ID == 0 || p.Title == "" {
				t.Errorf("%s: panel %q has the number %d", b.Title, p.Title, p.ID)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %q lies on %q, or beside the grid", b.Title, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.Type == "row" {
				continue
			}
			if !strings.HasSuffix(p.Description, ".") || !units[p.FieldConfig.Defaults.Unit] || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
				t.Errorf("%s: %q has the description %q, the unit %q, data of %q", b.Title, p.Title, p.Description, p.FieldConfig.Defaults.Unit, p.Datasource.UID)
			}
		}
		if len(b.Templating.List) < 2 || b.Templating.List[0].Type != "datasource" || b.SchemaVersion != 39 {
			t.Errorf("%s: its first variable has to be the data source", b.Title)
		}
	}
}

// A variable that nothing uses leads nowhere, and one that is used and not there shows nothing.
func TestEachVariableOfADashboardIsUsed(t *testing.T) {
	for _, b := range dashboards(t) {
		declared := map[string]bool{"__rate_interval": true, "__range": true}
		used := ""
		for _, q := range b.queries() {
			used += q.expr
		}
		for _, v := range b.Templating.List {
			declared[v.Name] = true
			if v.Type == "query" && !strings.Contains(used, "$"+v.Name) {
				t.Errorf("%s: nothing uses $%s", b.Title, v.Name)
			}
		}
		for _, name := range regexp.MustCompile(`\$([a-z_]+)`).FindAllStringSubmatch(used, -1) {
			if !declared[name[1]] {
				t.Errorf("%s: there is no variable %s", b.Title, name[1])
			}
		}
	}
}
