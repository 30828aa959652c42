package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/types"
)

// wireObject is an object as the API server sends it. Only what tells it from others is decoded, so that
// nothing that is wrong with it can stop a list or a watch.
type wireObject struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	raw []byte
}

// place tells the object from others of its kind.
func (o *wireObject) place() types.NamespacedName {
	return types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
}

// DeepCopyObject gives another object with the same text.
func (o *wireObject) DeepCopyObject() runtime.Object {
	c := *o
	o.DeepCopyInto(&c.ObjectMeta)
	return &c
}

// wireList is a list of them.
type wireList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []*wireObject
}

// DeepCopyObject gives another list of the same objects, which do not change.
func (l *wireList) DeepCopyObject() runtime.Object {
	c := *l
	return &c
}

// wireHead is the part of objects and lists that is decoded at once.
type wireHead struct {
	metav1.TypeMeta
	Metadata struct {
		Name              string            `json:"name"`
		Namespace         string            `json:"namespace"`
		UID               types.UID         `json:"uid"`
		Generation        int64             `json:"generation"`
		ResourceVersion   string            `json:"resourceVersion"`
		CreationTimestamp metav1.Time       `json:"creationTimestamp"`
		Annotations       map[string]string `json:"annotations"` // bookmarks say by one what they end
		Continue          string            `json:"continue"`    // of lists
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

func (h *wireHead) object(raw []byte) *wireObject {
	m := &h.Metadata
	o := &wireObject{TypeMeta: h.TypeMeta, raw: raw}
	o.Name, o.Namespace, o.UID, o.Generation = m.Name, m.Namespace, m.UID, m.Generation
	o.ResourceVersion, o.CreationTimestamp = m.ResourceVersion, m.CreationTimestamp
	for _, name := range carried {
		if value, ok := m.Annotations[name]; ok {
			if o.Annotations == nil {
				o.Annotations = map[string]string{}
			}
			o.Annotations[name] = value
		}
	}
	return o
}

// wire is the JSON of the API server, decoded without a scheme of types.
type wire struct{}

// codecs is wire as client-go asks for it.
func codecs() runtime.NegotiatedSerializer {
	return runtime.NewSimpleNegotiatedSerializer(runtime.SerializerInfo{
		MediaType: runtime.ContentTypeJSON, MediaTypeType: "application", MediaTypeSubType: "json", EncodesAsText: true, Serializer: wire{},
		StreamSerializer: &runtime.StreamSerializerInfo{EncodesAsText: true, Serializer: wire{}, Framer: kjson.Framer},
	})
}

// Decode reads an event of a watch, a Status, a list or an object.
func (wire) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if event, ok := into.(*metav1.WatchEvent); ok {
		return event, nil, json.Unmarshal(data, event)
	}
	var head wireHead
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, nil, fmt.Errorf("not an answer of an API server: %w", err)
	}
	kind := head.GroupVersionKind()
	switch {
	case head.Kind == "Status" && head.APIVersion == "v1":
		status := &metav1.Status{}
		return status, &kind, json.Unmarshal(data, status)
	case !strings.HasSuffix(head.Kind, "List"):
		return head.object(data), &kind, nil
	}
	list := &wireList{TypeMeta: head.TypeMeta}
	list.ResourceVersion, list.Continue = head.Metadata.ResourceVersion, head.Metadata.Continue
	for _, raw := range head.Items {
		var item wireHead
		if err := json.Unmarshal(raw, &item); err != nil {
			return nil, nil, fmt.Errorf("not an answer of an API server: %w", err)
		}
		list.Items = append(list.Items, item.object(raw))
	}
	return list, &kind, nil
}

// Encode is not needed: the sidecar writes nothing.
func (wire) Encode(runtime.Object, io.Writer) error { return errors.ErrUnsupported }

// Identifier names the encoder.
func (wire) Identifier() runtime.Identifier { return "remora" }
