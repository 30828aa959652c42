package routing

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"remora.dev/remora/apis/v1beta1"
)

// judgeKeyReference looks at one reference to a key.
func judgeKeyReference(f *findings, field string, ref *v1beta1.SecretKeyReference) {
	judgeReference(f, field+".name", ref.Name)
	if len(validation.IsConfigMapKey(secretKey(ref))) > 0 {
		f.invalid(InvalidValue, field+".key", "%q cannot be a key of a Secret: use letters, digits, -, _ and ., at most 253", ref.Key)
	}
}

// judgeKeyReferences looks at a list of them.
func judgeKeyReferences(f *findings, field string, c *v1beta1.OpenAIConfig) {
	refs := c.APIKeyRefs
	if refs == nil {
		return
	}
	for other, given := range map[string]bool{"apiKey": c.APIKey != "", "apiKeyRef": c.APIKeyRef != nil} {
		if given {
			f.invalid(InvalidValue, field, "is given together with %s: remove one of them", other)
		}
	}
	if n := len(refs); n == 0 {
		f.invalid(InvalidValue, field, "is empty: name a Secret, or leave it out")
	} else if n > v1beta1.MaxKeys {
		f.invalid(InvalidValue, field, "has %d entries: at most %d are allowed", n, v1beta1.MaxKeys)
	}
	with, total := 0, int64(0)
	seen := map[v1beta1.SecretKeyReference]bool{}
	for i := range refs {
		at := fmt.Sprintf("%s[%d]", field, i)
		judgeKeyReference(f, at, &refs[i].SecretKeyReference)
		id := v1beta1.SecretKeyReference{Name: refs[i].Name, Key: secretKey(&refs[i].SecretKeyReference)}
		if seen[id] {
			f.invalid(InvalidValue, at, "is named twice: give it the weight of both, and remove one")
		}
		seen[id] = true
		w := refs[i].Weight
		if w == nil {
			continue
		}
		with, total = with+1, total+int64(*w)
		if *w < 0 || *w > maxWeight {
			f.invalid(InvalidValue, at+".weight", "%d is not a weight: use 0 to %d", *w, maxWeight)
		}
	}
	switch {
	case with > 0 && with < len(refs):
		f.invalid(InvalidValue, field, "%d of %d entries have a weight: give every one a weight, or none", with, len(refs))
	case with > 0 && total == 0:
		f.invalid(InvalidValue, field, "every weight is 0: give one of them more")
	}
}

const maxWeight = 1_000_000

// judgeUse looks at who may use a provider, and for how long.
func judgeUse(f *findings, p *v1beta1.LLMProvider) {
	s := &p.Spec
	if n := len(s.ExportTo); n > v1beta1.MaxExportTo {
		f.invalid(InvalidValue, "spec.exportTo", "has %d entries: at most %d are allowed; \"*\" means every namespace", n, v1beta1.MaxExportTo)
	}
	for i, to := range s.ExportTo {
		field := fmt.Sprintf("spec.exportTo[%d]", i)
		switch {
		case to == v1beta1.ExportToOwn:
		case to != v1beta1.ExportToAll && len(validation.IsDNS1123Label(string(to))) > 0:
			f.invalid(InvalidValue, field, "%q is not the name of a namespace: write one, or \"*\" for every namespace", to)
		case p.Namespace != v1beta1.InstallationNamespace:
			f.invalid(InvalidValue, field, "only providers of namespace %s are exported, whose people are trusted with keys of others: move the provider and its Secrets there, or remove exportTo", v1beta1.InstallationNamespace)
		}
	}
	if s.AllowedUIDs != nil && len(s.AllowedUIDs) == 0 {
		f.invalid(InvalidValue, "spec.allowedUIDs", "is empty, so nobody could use the provider: name a user, or leave it out")
	} else if n := len(s.AllowedUIDs); n > v1beta1.MaxAllowedUIDs {
		f.invalid(InvalidValue, "spec.allowedUIDs", "has %d entries: at most %d are allowed", n, v1beta1.MaxAllowedUIDs)
	}
	for i, uid := range s.AllowedUIDs {
		if uid < 0 || uid > v1beta1.MaxUID {
			f.invalid(InvalidValue, fmt.Sprintf("spec.allowedUIDs[%d]", i), "%d is not a user: use 0 to %d", uid, int64(v1beta1.MaxUID))
		}
	}
	if d := s.RevocationGracePeriod; d != nil && d.Duration < 0 {
		f.invalid(InvalidValue, "spec.revocationGracePeriod", "%s is negative: use 0s to cut at once, or leave it out", d.Duration)
	}
}

func uidsOf(uids []int64) []uint32 {
	if len(uids) == 0 {
		return nil
	}
	all := make([]uint32, len(uids))
	for i, uid := range uids {
		all[i] = uint32(uid)
	}
	slices.Sort(all)
	return all
}
