#version 450
// Writes to the address in the push constants, wherever that is.
#extension GL_EXT_buffer_reference : require

layout(local_size_x = 1) in;

layout(buffer_reference) buffer Word {
    uint value;
};

layout(push_constant) uniform Place {
    Word word;
} place;

void main() {
    place.word.value = 1;
}
