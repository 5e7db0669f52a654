// The pixels of an image, with their channels put in order.
// Compiled by `make.sh` beside it; quad.frag.spv is what the program embeds.
#version 450

layout(push_constant) uniform Quad {
    vec4 area;
    ivec4 channels; // which byte of a pixel is red, green, blue, alpha; alpha < 0: opaque
} quad;

layout(set = 0, binding = 0) uniform sampler2D image;
layout(location = 0) in vec2 at;
layout(location = 0) out vec4 color;

void main() {
    vec4 bytes = texture(image, at);
    float alpha = quad.channels.a < 0 ? 1.0 : bytes[quad.channels.a];
    color = vec4(bytes[quad.channels.r], bytes[quad.channels.g], bytes[quad.channels.b], alpha);
}
