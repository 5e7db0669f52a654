#!/bin/sh
# Compiles the shaders to SPIR-V. Needs glslangValidator (Debian: glslang-tools) and spirv-opt,
# spirv-val (spirv-tools). Run after changing a shader, and commit what it makes.
set -eu
cd "$(dirname "$0")"
for shader in quad.vert quad.frag; do
    glslangValidator --target-env vulkan1.1 -g0 -o "$shader.spv" "$shader"
    spirv-opt -O --strip-debug "$shader.spv" -o "$shader.spv"
    spirv-val --target-env vulkan1.1 "$shader.spv"
done
