#include "vitrail/models/key_map_rules.h"

namespace vitrail::models {
namespace {

using Rules = std::vector<Rule>;

Rules operator+(Rules a, const Rules& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Rule one(std::string ours, std::string theirs) { return {{std::move(ours)}, {std::move(theirs)}}; }

// transformers -----------------------------------------------------------------------------------

/// Attention as files on the hub name it.
Rules hub_attention(const std::string& ours, const std::string& theirs) {
  const std::string attention = theirs + "attention.attention.";
  return {{{ours + "attn.qkv."}, {attention + "query.", attention + "key.", attention + "value."}},
          one(ours + "attn.proj.", theirs + "attention.output.dense.")};
}

/// Attention as release 5 names it in memory.
Rules release5_attention(const std::string& ours, const std::string& theirs) {
  const std::string attention = theirs + "attention.";
  return {
      {{ours + "attn.qkv."}, {attention + "q_proj.", attention + "k_proj.", attention + "v_proj."}},
      one(ours + "attn.proj.", attention + "o_proj.")};
}

Rules vit_norms(const std::string& ours, const std::string& theirs) {
  return {one(ours + "norm1.", theirs + "layernorm_before."),
          one(ours + "norm2.", theirs + "layernorm_after.")};
}

Rules vit_hub_blocks(const std::string& ours, const std::string& theirs) {
  return vit_norms(ours, theirs) + hub_attention(ours, theirs) +
         Rules{one(ours + "mlp.fc1.", theirs + "intermediate.dense."),
               one(ours + "mlp.fc2.", theirs + "output.dense.")};
}

Rules vit_release5_blocks(const std::string& ours, const std::string& theirs) {
  return vit_norms(ours, theirs) + release5_attention(ours, theirs) +
         Rules{one(ours + "mlp.fc1.", theirs + "mlp.fc1."),
               one(ours + "mlp.fc2.", theirs + "mlp.fc2.")};
}

Rules hf_ends() {
  return {one("cls_token", "embeddings.cls_token"),
          one("pos_embed", "embeddings.position_embeddings"),
          one("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
          one("norm.", "layernorm."),
          one("head.", "classifier."),
          one("unused.pooler.", "pooler."),
          one("unused.embeddings.mask_token", "embeddings.mask_token")};
}

Rules hf_decoder() {
  return {one("mask_token", "decoder.mask_token"),
          one("decoder_pos_embed", "decoder.decoder_pos_embed"),
          one("decoder_embed.", "decoder.decoder_embed."),
          one("decoder_norm.", "decoder.decoder_norm."),
          one("decoder_pred.", "decoder.decoder_pred.")};
}

/// DINOv2's parts of a block that do not depend on the release.
Rules dinov2_shared(const std::string& theirs) {
  return {one("blocks.#.norm1.", theirs + "norm1."),
          one("blocks.#.norm2.", theirs + "norm2."),
          one("blocks.#.ls1.gamma", theirs + "layer_scale1.lambda1"),
          one("blocks.#.ls2.gamma", theirs + "layer_scale2.lambda1"),
          one("blocks.#.mlp.fc1.", theirs + "mlp.fc1."),
          // SwiGLU: one matrix, the gate's rows first.
          {{"blocks.#.mlp.fc1_g.", "blocks.#.mlp.fc1_x."}, {theirs + "mlp.weights_in."}}};
}

/// fc2 has two names; which one is written is decided by the form.
Form dinov2_form(std::string wrapper, std::vector<std::string> needs, bool gated) {
  const std::string layer = "encoder.layer.#.";
  Rules rules = hf_ends() + dinov2_shared(layer) + hub_attention("blocks.#.", layer) +
                Rules{one("reg_token", "embeddings.register_tokens"),
                      one("blocks.#.mlp.fc2.", layer + (gated ? "mlp.weights_out." : "mlp.fc2."))};
  return {rules, std::move(needs), std::move(wrapper), {"head."}, {"classifier."}};
}

Rules dinov2_release5() {
  const std::string layer = "encoder.layer.#.";
  return release5_attention("blocks.#.", layer) +
         Rules{one("blocks.#.mlp.fc1_g.", layer + "mlp.gate_proj."),
               one("blocks.#.mlp.fc1_x.", layer + "mlp.up_proj."),
               one("blocks.#.mlp.fc2.", layer + "mlp.down_proj.")};
}

Scheme hf() {
  const Form vit{hf_ends() + vit_hub_blocks("blocks.#.", "encoder.layer.#."),
                 {},
                 "vit.",
                 {"head."},
                 {"classifier."}};
  // Files say decoder_layers; release 5 writes decoder_encoder.layer.
  const auto mae = [](const std::string& layers) {
    return Form{hf_ends() + hf_decoder() + vit_hub_blocks("blocks.#.", "encoder.layer.#.") +
                    vit_hub_blocks("decoder_blocks.#.", layers),
                {"decoder_pred."},
                "vit.",
                {"mask_token"},
                {"decoder."}};
  };
  const Form read_only{vit_release5_blocks("blocks.#.", "layers.#.") +
                           vit_release5_blocks("decoder_blocks.#.", "decoder.decoder_layers.#.") +
                           dinov2_release5(),
                       {},
                       "",
                       {},
                       {},
                       /*written=*/false};
  return {Naming::hf,
          {"embeddings.patch_embeddings."},
          {"vit.", "dinov2.", "dinov2_with_registers."},
          {mae("decoder.decoder_layers.#."), mae("decoder.decoder_encoder.layer.#."),
           dinov2_form("dinov2_with_registers.", {"reg_token", ".fc1_g."}, true),
           dinov2_form("dinov2_with_registers.", {"reg_token"}, false),
           dinov2_form("dinov2.", {".fc1_g."}, true), dinov2_form("dinov2.", {".ls1."}, false), vit,
           read_only},
          PositionRows::class_token};
}

// MONAI ------------------------------------------------------------------------------------------

Scheme monai() {
  const Rules rules{
      one("cls_token", "cls_token"),
      one("pos_embed", "patch_embedding.position_embeddings"),
      one(kLinearPatch, "patch_embedding.patch_embeddings.1."),
      one("patch_embed.proj.", "patch_embedding.patch_embeddings."),
      one("blocks.#.norm1.", "blocks.#.norm1."),
      one("blocks.#.norm2.", "blocks.#.norm2."),
      one("blocks.#.attn.qkv.", "blocks.#.attn.qkv."),
      one("blocks.#.attn.proj.", "blocks.#.attn.out_proj."),
      one("blocks.#.mlp.fc1.", "blocks.#.mlp.linear1."),
      one("blocks.#.mlp.fc2.", "blocks.#.mlp.linear2."),
      one("unused.blocks.#.norm_cross_attn.", "blocks.#.norm_cross_attn."),
      one("unused.blocks.#.cross_attn.", "blocks.#.cross_attn."),
      one("norm.", "norm."),
      one("head.", "classification_head."),
      one("encoder1.", "encoder1."),
      one("encoder2.", "encoder2."),
      one("encoder3.", "encoder3."),
      one("encoder4.", "encoder4."),
      one("decoder5.", "decoder5."),
      one("decoder4.", "decoder4."),
      one("decoder3.", "decoder3."),
      one("decoder2.", "decoder2."),
      one("out.", "out."),
  };
  return {Naming::monai,
          {"patch_embedding.patch_embeddings."},
          {"vit."},
          {{rules, {}, "vit.", {"encoder1.", "decoder5.", "out."}, {"encoder", "decoder", "out."}}},
          PositionRows::none};
}

// torchtitan-mae ---------------------------------------------------------------------------------

Rules llama_blocks(const std::string& ours, const std::string& theirs) {
  const std::string attention = theirs + "attention.", mlp = theirs + "feed_forward.";
  return {one(ours + "norm1.", theirs + "attention_norm."),
          one(ours + "norm2.", theirs + "ffn_norm."),
          {{ours + "attn.qkv."}, {attention + "wq.", attention + "wk.", attention + "wv."}},
          one(ours + "attn.proj.", attention + "wo."),
          one(ours + "mlp.fc1_g.", mlp + "w1."),
          one(ours + "mlp.fc1_x.", mlp + "w3."),
          one(ours + "mlp.fc2.", mlp + "w2.")};
}

Scheme torchtitan_mae() {
  const Rules ends{one("patch_embed.proj.", "encoder.patch_embedding.proj."),
                   one("norm.", "encoder.norm."),
                   one("decoder_embed.", "decoder.embedding."),
                   one("mask_token", "decoder.mask_token"),
                   one("decoder_norm.", "decoder.norm."),
                   one("decoder_pred.", "decoder.output.")};
  return {Naming::torchtitan_mae,
          {"encoder.patch_embedding.proj.", ".attention.wq."},
          {},
          {{ends + llama_blocks("blocks.#.", "encoder.layers.#.") +
            llama_blocks("decoder_blocks.#.", "decoder.layers.#.")}}};
}

// UCF-VIT ----------------------------------------------------------------------------------------

/// Norm, linear, norm in a Sequential.
Rules leaf_layer(const std::string& ours, const std::string& theirs) {
  Rules rules;
  for (const std::string end : {"weight", "bias"}) {
    rules.push_back(one(ours + "norm1." + end, theirs + "0." + end));
    rules.push_back(one(ours + "proj." + end, theirs + "1." + end));
    rules.push_back(one(ours + "norm2." + end, theirs + "2." + end));
  }
  return rules;
}

Scheme ucf_vit() {
  const Rules ends{one("leaf_position.proj.", "adaptive_pos_dep_emb.0."),
                   one("decoder_leaf_position.proj.", "decoder_adaptive_pos_dep_emb.0."),
                   one("time_embed.fc1.", "timeEmbeddingMap.linear1."),
                   one("time_embed.fc2.", "timeEmbeddingMap.linear2.")};
  const Rules sap{one("neck.weight", "neck.0.weight"), one("head.", "mask_header.0.")};
  // Three forms of tokens, each below SAP's head or another.
  std::vector<Form> forms;
  for (const bool is_sap : {true, false}) {
    const auto add = [&](const Rules& tokens, std::vector<std::string> needs) {
      if (is_sap) needs.push_back("neck.");
      forms.push_back({ends + tokens + (is_sap ? sap : Rules{}), std::move(needs)});
    };
    add(leaf_layer("patch_embed.", "token_embeds."), {"patch_embed.norm1."});
    add(leaf_layer("token_embeds.#.", "token_embeds.#."), {"token_embeds.0.norm1."});
    add({}, {});
  }
  // A UNETR with a linear decoder; in our names nothing tells it from a ViT, so it leaves as one.
  forms.push_back({{one("head.", "mlp_head.")}, {}, "", {}, {}, /*written=*/false});
  return {Naming::ucf_vit,
          {"token_embeds.proj.", "token_embeds.1.weight", "token_embeds.0.1.",
           "adaptive_pos_dep_emb.", "timeEmbeddingMap.", "mask_header."},
          {},
          forms,
          PositionRows::all,
          /*same_otherwise=*/true};
}

// timm, facebookresearch/mae -----------------------------------------------------------------------

/// Packed gates are taken apart when read, so only names without a counterpart need a word.
Scheme timm() {
  return {Naming::timm,
          {},
          {},
          {{}},
          PositionRows::all,
          true,
          {{"decoder_", "timm has no decoder"}, {"mask_token", "timm has no decoder"}}};
}

}  // namespace

const std::vector<Scheme>& schemes() {
  static const std::vector<Scheme> all{
      hf(),
      monai(),
      torchtitan_mae(),
      ucf_vit(),
      {Naming::mae, {"mask_token"}, {}, {{}}, PositionRows::all, true},
      timm()};
  return all;
}

}  // namespace vitrail::models
