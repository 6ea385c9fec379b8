#pragma once
/// Overrides and YAML that are refused, and several problems at once.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

inline const std::vector<BadRecipe>& bad_texts() {
  static const std::vector<BadRecipe> table{
      {kBase,
       {"model.dept=3"},
       "[config] model.dept is not a known key; did you mean 'depth'?  (command line: "
       "model.dept=3)"},
      {kBase,
       {"depth"},
       "[config] an override must be key.path=value but got 'depth'  (command line: depth)"},
      {kBase,
       {"=3"},
       "[config] an override's key must be like data.sources[0].root but got ''  (command line: "
       "=3)"},
      {kBase,
       {"model..depth=3"},
       "[config] an override's key must be like data.sources[0].root but got 'model..depth'  "
       "(command line: model..depth=3)"},
      {kBase,
       {"model.image_size[=3"},
       "[config] an override's key must be like data.sources[0].root but got 'model.image_size['  "
       "(command line: model.image_size[=3)"},
      {kBase,
       {"model.image_size[x]=3"},
       "[config] an override's key must be like data.sources[0].root but got 'model.image_size[x]' "
       " (command line: model.image_size[x]=3)"},
      {kBase,
       {"data.sources[2].root=x"},
       "[config] data.sources has 1 element, so the next one is [1] but got [2]  (command line: "
       "data.sources[2].root=x)"},
      {kBase,
       {"data.sources.root=x"},
       "[config] data.sources is a list; name one of its elements, as in data.sources[0].root  "
       "(command line: data.sources.root=x)"},
      {kBase,
       {"model.depth[0]=3"},
       "[config] model.depth must be a whole number but got a list  (command line: "
       "model.depth[0]=3)"},
      {kBase,
       {"model.depth.x=3"},
       "[config] model.depth must be a whole number but got a map  (command line: "
       "model.depth.x=3)"},
      {kBase,
       {"model.image_size=[8,"},
       "[config] model.image_size: not valid YAML: end of sequence flow not found  (command line: "
       "model.image_size=[8,)"},
      {kBase,
       {"model.depth=six"},
       "[config] model.depth must be a whole number but got 'six'  (command line: "
       "model.depth=six)"},
      {kBase,
       {"run.name=a: b: c"},
       "[config] run.name: not valid YAML: illegal map value  (command line: run.name=a: b: c)"},
      {"", {}, "[config] the recipe is empty  (r.yaml:1:1)"},
      {"# nothing\n", {}, "[config] the recipe is empty  (r.yaml:1:1)"},
      {"just text\n",
       {},
       "[config] a recipe must be a map of sections but got 'just text'  (r.yaml:1:1)"},
      {"- a\n- b\n",
       {},
       "[config] a recipe must be a map of sections but got a list  (r.yaml:1:1)"},
      {"model: {depth: 3\n",
       {},
       "[config] not valid YAML: end of map flow not found  (r.yaml:2:1)"},
      {"model:\n  depth: 3\n depth: 4\n",
       {},
       "[config] not valid YAML: end of map not found  (r.yaml:3:2)"},
      {"model: {depth: 3, depth: 4}\n",
       {},
       "[config] model.depth is given twice; first at r.yaml:1:9  (r.yaml:1:19)"},
      {"model: {depth: 3}\nrun: {name: a}\nmodel: {depth: 4}\n",
       {},
       "[config] model is given twice; first at r.yaml:1:1  (r.yaml:3:1)"},
      {"model: {depth: *none}\n",
       {},
       "[config] not valid YAML: the referenced anchor is not defined  (r.yaml:1:16)"},
      {"model: &m {depth: *m}\n",
       {},
       "[config] an alias refers to the value that holds it  (r.yaml:1:19)"},
      {"model: {<<: {depth: 3}}\n",
       {},
       "[config] merge keys (<<) are not supported; write the keys out or alias single values  "
       "(r.yaml:1:9)"},
      {"model: {depth: !!int 3}\n",
       {},
       "[config] tag 'tag:yaml.org,2002:int' is not supported  (r.yaml:1:16)"},
      {"model: {[1]: 3}\n", {}, "[config] a key must be text but got a list  (r.yaml:1:9)"},
      {"model: {depth: 3}\n---\nmodel: {depth: 4}\n",
       {},
       "[config] a second document starts here; a recipe is one document  (r.yaml:2:1)"},
      {"model:\n\tdepth: 3\n",
       {},
       "[config] not valid YAML: illegal map value; the line is indented by a tab, use spaces  "
       "(r.yaml:2:7)"},
      {"model: {depth: 3}\x01\n",
       {},
       "[config] control character 0x01; is this a text file in UTF-8?  (r.yaml:1:18)"},
      {"run: {name: \"a\\nb\"}\n",
       {},
       "[config] run.name must be usable as a folder name (no '/', at most 200 bytes) but is "
       "'a\\x0ab'  (r.yaml:1:13)"},
      {"a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
       {},
       "[config] lists and maps must be nested at most 32 deep  (r.yaml:1:35)"},
      {"run: {name: a/b}\nmodel:\n  depth: twelve\n  num_head: 3\n  num_heads: 5\nmodle: 3\n",
       {"train.optimizer.lr=fast"},
       "[config] run.name must be usable as a folder name (no '/', at most 200 bytes) but is 'a/b' "
       " (r.yaml:1:13)\n"
       "[config] model.depth must be a whole number but got 'twelve'  (r.yaml:3:10)\n"
       "[config] model.num_head is not a known key; did you mean 'num_heads'?  (r.yaml:4:3)\n"
       "[config] model.embed_dim must be a multiple of model.num_heads but got 768 and 5; 4 "
       "heads divide it  (r.yaml:5:14)\n"
       "[config] modle is not a known key; did you mean 'model'?  (r.yaml:6:1)\n"
       "[config] train.optimizer.lr must be a number but got 'fast'  (command line: "
       "train.optimizer.lr=fast)"},
      {"model: {embed_dim: wide, num_heads: 7}\n",
       {},
       "[config] model.embed_dim must be a whole number but got 'wide'  (r.yaml:1:20)"},
  };
  return table;
}

}  // namespace vitrail::config
