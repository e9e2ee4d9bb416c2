// SPDX-License-Identifier: Apache-2.0

package specialize

// addMetadata adds spec.commonMetadata to the objects themselves: to no selector and no template, as Flux does.
func (in Input) addMetadata(objects []object) {
	if in.Spec == nil || in.Spec.CommonMetadata == nil {
		return
	}
	for _, o := range objects {
		meta, ok := o.fields["metadata"].(map[string]any)
		if !ok {
			continue // accept refuses it
		}
		addTexts(meta, "labels", in.Spec.CommonMetadata.Labels)
		addTexts(meta, "annotations", in.Spec.CommonMetadata.Annotations)
	}
}

// addTexts puts texts over those of a field.
func addTexts(meta map[string]any, field string, texts map[string]string) {
	if len(texts) == 0 {
		return
	}
	if meta[field] == nil {
		meta[field] = map[string]any{}
	}
	if there, ok := meta[field].(map[string]any); ok {
		for key, text := range texts {
			there[key] = text
		}
	}
}
