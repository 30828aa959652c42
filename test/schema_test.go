package test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metavalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/test/cases"
)

// schemas judges objects as the API server does before it asks a webhook: by the generated CRDs, offline.
type schemas map[string]*kindSchema // by kind

type kindSchema struct {
	structural *schema.Structural
	openAPI    validation.SchemaValidator
	cel        *cel.Validator
}

// readDefinitions reads the generated CRDs, by file name.
func readDefinitions(t *testing.T) map[string]*apiextensions.CustomResourceDefinition {
	t.Helper()
	scheme := runtime.NewScheme()
	install.Install(scheme)
	files, err := filepath.Glob("../config/crd/*_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	all := map[string]*apiextensions.CustomResourceDefinition{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var written apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &written); err != nil {
			t.Fatal(err)
		}
		scheme.Default(&written)
		definition := &apiextensions.CustomResourceDefinition{}
		if err := scheme.Convert(&written, definition, nil); err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = definition
	}
	return all
}

func readSchemas(t *testing.T) schemas {
	t.Helper()
	all := schemas{}
	for _, definition := range readDefinitions(t) {
		properties, err := apiextensions.GetSchemaForVersion(definition, "v1beta1")
		if err != nil {
			t.Fatal(err)
		}
		structural, err := schema.NewStructural(properties.OpenAPIV3Schema)
		if err != nil {
			t.Fatal(err)
		}
		openAPI, _, err := validation.NewSchemaValidator(properties.OpenAPIV3Schema)
		if err != nil {
			t.Fatal(err)
		}
		all[definition.Spec.Names.Kind] = &kindSchema{structural, openAPI, cel.NewValidator(structural, true, celconfig.PerCallLimit)}
	}
	return all
}

// faults gives what the API server would refuse in an object that is created with strict field validation, as kubectl asks
// for by default. The object gets the defaults.
func (s schemas) faults(object map[string]any) []string {
	kind, _ := object["kind"].(string)
	k := s[kind]
	delete(object, "status") // as the API server does: it is a subresource
	var faults []string
	unknown := pruning.PruneWithOptions(object, k.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		faults = append(faults, path+": unknown field")
	}
	if metadata, ok := object["metadata"].(map[string]any); !ok {
		faults = append(faults, "metadata: not a map")
	} else if name, _ := metadata["name"].(string); len(metavalidation.NameIsDNSSubdomain(name, false)) > 0 {
		faults = append(faults, "metadata.name: not a name")
	}
	if err := objectmeta.Coerce(nil, object, k.structural, true, false); err != nil {
		faults = append(faults, err.Error())
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, k.structural)
	defaulting.Default(object, k.structural)

	errs := validation.ValidateCustomResource(nil, object, k.openAPI)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, k.structural, object)...)
	// Rules are not asked where the shape is wrong; nor does the API server.
	if len(errs) == 0 {
		rules, _ := k.cel.Validate(context.Background(), nil, k.structural, object, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, rules...)
	}
	for _, err := range errs {
		faults = append(faults, err.Error())
	}
	return faults
}

// The API server bounds the estimated cost of CEL rules by the limits of lists, maps and strings, and refuses a CRD beyond.
func TestTheAPIServerAdmitsTheDefinitions(t *testing.T) {
	for name, definition := range readDefinitions(t) {
		// What the storage of the API server fills in before it validates.
		definition.Status.StoredVersions = []string{"v1beta1"}
		for _, err := range crdvalidation.ValidateCustomResourceDefinition(t.Context(), definition) {
			t.Errorf("%s: %s", name, err)
		}
	}
}

// Without this, a limit that was taken out of the types would be noticed by nobody but the API server.
func TestADefinitionWithRulesThatCostTooMuchIsNoticed(t *testing.T) {
	for _, definition := range readDefinitions(t) {
		if definition.Spec.Names.Kind != "LLMRoute" {
			continue
		}
		definition.Status.StoredVersions = []string{"v1beta1"}
		spec := definition.Spec.Validation
		if spec == nil {
			spec = definition.Spec.Versions[0].Schema
		}
		rules := spec.OpenAPIV3Schema.Properties["spec"].Properties["rules"]
		rules.MaxItems = nil
		spec.OpenAPIV3Schema.Properties["spec"].Properties["rules"] = rules
		errs := crdvalidation.ValidateCustomResourceDefinition(t.Context(), definition)
		if !hasCostError(errs) {
			t.Errorf("no complaint of the cost of %s without a limit of rules: %v", definition.Name, errs)
		}
	}
}

func hasCostError(errs field.ErrorList) bool {
	for _, err := range errs {
		if strings.Contains(err.Error(), "cost") {
			return true
		}
	}
	return false
}

// The API server also bounds what the rules cost for one object.
func TestTheLargestProviderIsJudgedByEveryRule(t *testing.T) {
	var tree map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(cases.LargestProvider(), &tree); err != nil {
		t.Fatal(err)
	}
	schemas := readSchemas(t)
	for _, fault := range schemas.faults(tree) {
		t.Errorf("it is refused: %s", fault)
	}
	configs := tree["spec"].(map[string]any)["configs"].(map[string]any)["routeSpecificConfigs"].(map[string]any)
	refs := configs["rule-255"].(map[string]any)["openAIConfig"].(map[string]any)["apiKeyRefs"].([]any)
	delete(refs[15].(map[string]any), "weight")
	if faults := schemas.faults(tree); len(faults) != 1 || !strings.Contains(faults[0], "rule-255].openAIConfig.apiKeyRefs: Invalid value: give every entry a weight, or none") {
		t.Errorf("a weight is missing in the last place, and said is %q", faults)
	}
}
