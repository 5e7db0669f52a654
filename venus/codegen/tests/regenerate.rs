//! Tests that the generated files in the tree are what the generator makes from the pinned
//! registry.

use hesper_venus_codegen::{
    Result, fetch, generate, model, nesting, output, reader, resolve, select, tables,
};

/// The text of vk.xml. Panics with the reason and the remedy if it cannot be had.
fn registry() -> String {
    fetch::vk_xml().unwrap_or_else(|error| panic!("vk.xml is needed for this test: {error}"))
}

fn build(xml: &str) -> Result<model::Model> {
    let registry = reader::read(xml)?;
    let tables = tables::load()?;
    let selection = select::select(&registry, &tables);
    resolve::build(&registry, &selection, &tables)
}

#[test]
fn the_tree_has_what_the_generator_makes() {
    let files = generate(&registry()).unwrap();
    output::check(&files).unwrap_or_else(|error| panic!("{error}"));
    for path in output::listing().unwrap() {
        assert!(
            files.iter().any(|f| f.path == path),
            "the generator does not make {path}: delete it"
        );
    }
}

#[test]
fn everything_the_tables_ask_for_is_in_the_model() {
    let model = build(&registry()).unwrap();
    let tables = tables::load().unwrap();
    assert_eq!(model.commands.len(), 325);
    for command in tables.commands.iter().filter(|c| c.codable) {
        assert!(
            model.commands.iter().any(|c| c.c_name == command.name),
            "{}",
            command.name
        );
    }
    for private in &tables.structs {
        assert!(
            model.structs.contains_key(&private.name),
            "{}",
            private.name
        );
    }
    let public = model
        .structs
        .keys()
        .filter(|name| !name.ends_with("MESA"))
        .count();
    assert_eq!((public, model.unions.len()), (PUBLIC_STRUCTS, UNIONS));
}

/// The number of structs that codable commands reach, with chains. The reference has 518: it also
/// has codecs for structs of commands without a codec (file descriptors, host copies, mapping).
const PUBLIC_STRUCTS: usize = 503;
const UNIONS: usize = 7;

#[test]
fn nesting_ends() {
    let mut model = build(&registry()).unwrap();
    assert_eq!(nesting::depth(&model).unwrap(), DEPTH);
    // A struct in its own chain would let a guest nest without end.
    let buffer = model.structs.get_mut("VkBufferCreateInfo").unwrap();
    buffer.chain.push("VkDeviceBufferMemoryRequirements".into());
    let error = nesting::depth(&model).unwrap_err().to_string();
    assert!(error.contains("can contain itself"), "{error}");
}

/// The largest number of structs within structs, which bounds the decoder's stack.
const DEPTH: usize = 9;
