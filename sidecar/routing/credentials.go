package routing

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

type secretID struct{ namespace, name string }

// inlineName is the name of the key that is written into an object; that of a rule has the rule's name after it.
const inlineName = "inline"

func (c *compiler) judgeSecretNames() {
	for i := range c.in.Secrets {
		s := &c.in.Secrets[i]
		id := secretID{s.Namespace, s.Name}
		if c.secrets[id] == nil {
			c.secrets[id] = s
			continue
		}
		f := findings{object: Ref{"Secret", s.Namespace, s.Name}}
		f.invalid(DuplicateObject, "metadata.name", "there is another %s, which is used: rename one of them, or remove it", f.object)
		c.strangers = append(c.strangers, f.list...)
	}
}

// judgeSecrets reports the Secrets that a provider names and that are not as they should be.
func (c *compiler) judgeSecrets(o *object) {
	if c.in.Secrets == nil {
		return
	}
	check := func(field string, conf *v1beta1.OpenAIConfig) {
		if ref := conf.APIKeyRef; ref != nil {
			if _, r := c.key(o.object.Namespace, ref); r != nil {
				o.add(Unresolved, r.Code, field+".apiKeyRef", "%s; until then the calls that need it fail", r.Message)
			}
		}
		_, none := c.keys(o, conf, "")
		for i := range conf.APIKeyRefs {
			ref := &conf.APIKeyRefs[i]
			_, r := c.key(o.object.Namespace, &ref.SecretKeyReference)
			if r == nil {
				continue
			}
			meanwhile := "until then the other keys have its share"
			if weightOf(ref) == 0 {
				meanwhile = "no call needs it while its weight is 0"
			} else if none != nil {
				meanwhile = "until then the calls that need it fail, since there is no other"
			}
			o.add(Unresolved, r.Code, fmt.Sprintf("%s.apiKeyRefs[%d]", field, i), "%s; %s", r.Message, meanwhile)
		}
	}
	configs := &o.provider.Spec.Configs
	check("spec.configs.defaultConfig.openAIConfig", &configs.DefaultConfig.OpenAIConfig)
	for name, conf := range configs.RouteSpecificConfigs {
		check("spec.configs.routeSpecificConfigs["+name+"].openAIConfig", &conf.OpenAIConfig)
	}
	if _, _, r := c.clientCertificate(o); r != nil {
		o.add(Unresolved, r.Code, "spec.tls.clientCertificateRef", "%s; until then the calls fail", r.Message)
	}
}

// keys gives the keys that the calls of a rule are sent with. Where none of those that are there has a share, the
// refusal says which one is missing.
func (c *compiler) keys(o *object, conf *v1beta1.OpenAIConfig, rule string) ([]Credential, *Refusal) {
	there, missing := c.named(o, conf, rule)
	if !slices.ContainsFunc(there, func(k Credential) bool { return k.Weight > 0 }) {
		return nil, missing
	}
	return there, nil
}

// named gives the keys that a config names and that are there, and why the first is not that should have a share.
func (c *compiler) named(o *object, conf *v1beta1.OpenAIConfig, rule string) (there []Credential, missing *Refusal) {
	if conf.APIKey != "" {
		name := inlineName
		if specific := o.provider.Spec.Configs.RouteSpecificConfigs[rule].OpenAIConfig; rule != "" && hasKey(&specific) {
			name += " " + rule
		}
		return []Credential{{Name: name, Key: NewKey(conf.APIKey), Weight: 1}}, nil
	}
	for _, ref := range keyRefs(conf) {
		key, r := c.key(o.object.Namespace, &ref.SecretKeyReference)
		weight := weightOf(&ref)
		if r == nil {
			there = append(there, Credential{"secret " + ref.Name + "/" + secretKey(&ref.SecretKeyReference), key, weight})
		} else if weight > 0 {
			missing = cmp.Or(missing, r)
		}
	}
	return there, missing
}

func weightOf(ref *v1beta1.WeightedKeyReference) uint32 {
	if ref.Weight == nil {
		return 1
	}
	return uint32(*ref.Weight)
}

// addCredentials has a table know every key that a provider names and that is there. Whether a rule uses it, and
// whether the provider is refused for something else, takes no key away from the calls that are under way.
func (c *compiler) addCredentials(t *Table, o *object) {
	add := func(conf *v1beta1.OpenAIConfig, rule string) {
		there, _ := c.named(o, conf, rule)
		for _, k := range there {
			t.credentials[CredentialID{o.object, k.Name}] = k.Key
		}
	}
	configs := &o.provider.Spec.Configs
	add(&configs.DefaultConfig.OpenAIConfig, "")
	for rule, conf := range configs.RouteSpecificConfigs {
		if rule != "" { // which names no rule
			add(&conf.OpenAIConfig, rule)
		}
	}
}

// keyRefs gives the references of a config, one or several.
func keyRefs(conf *v1beta1.OpenAIConfig) []v1beta1.WeightedKeyReference {
	if conf.APIKeyRef != nil {
		return []v1beta1.WeightedKeyReference{{SecretKeyReference: *conf.APIKeyRef}}
	}
	return conf.APIKeyRefs
}

// key finds the key that a reference means. With Secrets unknown, it gives none.
func (c *compiler) key(namespace string, ref *v1beta1.SecretKeyReference) (Key, *Refusal) {
	if c.presume {
		return NewKey(namespace + "/" + ref.Name + "/" + secretKey(ref)), nil
	}
	s := c.secrets[secretID{namespace, ref.Name}]
	if s == nil {
		return Key{}, c.noSecret(namespace, ref.Name, secretKey(ref))
	}
	value, ok := s.Data[secretKey(ref)]
	if !ok && c.in.KeysIn != "" {
		return Key{}, c.noSecret(namespace, ref.Name, secretKey(ref))
	}
	if !ok {
		return Key{}, &Refusal{SecretNotFound, fmt.Sprintf("Secret %s/%s has no key %s: add it", namespace, ref.Name, secretKey(ref))}
	}
	// kubectl create secret --from-file keeps the newline that editors put at the end.
	text := strings.TrimRight(value.Reveal(), "\r\n")
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Key{}, &Refusal{SecretInvalid, fmt.Sprintf("key %s of Secret %s/%s is empty or has characters that an API key cannot have: correct it", secretKey(ref), namespace, ref.Name)}
	}
	return NewKey(text), nil
}

// noSecret says what to create, where the keys are looked for.
func (c *compiler) noSecret(namespace, name, key string) *Refusal {
	if c.in.KeysIn == "" {
		return &Refusal{SecretNotFound, fmt.Sprintf("Secret %s/%s does not exist: create it", namespace, name)}
	}
	if namespace == v1beta1.InstallationNamespace {
		return &Refusal{SecretNotFound, fmt.Sprintf("key %s of Secret %s/%s is not there: ask those who run Remora to add it, or whether the provider is meant to be used", key, namespace, name)}
	}
	return &Refusal{SecretNotFound, fmt.Sprintf("Secret %s/%s, from which sidecars have what other Secrets hold, has no %s for key %s of Secret %s: add it",
		namespace, c.in.KeysIn, v1beta1.KeysSecretEntry(name, key), key, name)}
}

func (c *compiler) clientCertificate(o *object) (cert string, key Key, refusal *Refusal) {
	t := o.provider.Spec.TLS
	if t == nil || t.ClientCertificateRef == nil {
		return "", Key{}, nil
	}
	if c.presume {
		return t.ClientCertificateRef.Name, Key{}, nil
	}
	name := o.object.Namespace + "/" + t.ClientCertificateRef.Name
	s := c.secrets[secretID{o.object.Namespace, t.ClientCertificateRef.Name}]
	if s == nil {
		return "", Key{}, c.noSecret(o.object.Namespace, t.ClientCertificateRef.Name, "tls.crt")
	}
	cert, key = s.Data["tls.crt"].Reveal(), s.Data["tls.key"]
	if _, err := tls.X509KeyPair([]byte(cert), []byte(key.Reveal())); err != nil {
		return "", Key{}, &Refusal{SecretInvalid, "Secret " + name + " does not hold a certificate and its key in tls.crt and tls.key: correct it"}
	}
	return cert, key, nil
}
