#version 450
// Vertex buffers: positions and texture coordinates per vertex, an offset per instance.
layout(location = 0) in vec2 position;
layout(location = 1) in vec2 coordinate;
layout(location = 2) in vec2 offset;
layout(location = 0) out vec2 at;

void main() {
    gl_Position = vec4(position + offset, 0.0, 1.0);
    at = coordinate;
}
