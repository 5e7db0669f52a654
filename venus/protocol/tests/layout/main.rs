//! Our structs have the layout of C: compared, field by field, with `vulkanalia-sys`, a binding
//! that others made from the same registry.

mod generated;

/// What was compared and what differs.
#[derive(Default)]
pub(crate) struct Check {
    structs: usize,
    fields: usize,
    differences: Vec<String>,
}

impl Check {
    pub(crate) fn same(&mut self, name: &str, what: &str, ours: usize, theirs: usize) {
        self.fields += 1;
        if ours != theirs {
            self.differences
                .push(format!("{name}: {what} is {ours}, theirs {theirs}"));
        }
    }

    pub(crate) fn structure(&mut self) {
        self.structs += 1;
    }
}

/// Makes a function, named as the struct, that compares size, alignment and the offset of every
/// field.
#[macro_export]
macro_rules! layout {
    ($name:ident, $their_name:ident: $($field:ident = $their_field:ident,)*) => {
        #[allow(non_snake_case)]
        fn $name(check: &mut $crate::Check) {
            type Ours = hesper_venus_protocol::vk::$name;
            type Theirs = vulkanalia_sys::$their_name;
            check.structure();
            let name = stringify!($name);
            check.same(name, "size", size_of::<Ours>(), size_of::<Theirs>());
            check.same(name, "alignment", align_of::<Ours>(), align_of::<Theirs>());
            $(
                let ours = std::mem::offset_of!(Ours, $field);
                let theirs = std::mem::offset_of!(Theirs, $their_field);
                check.same(name, stringify!($field), ours, theirs);
            )*
        }
    };
}

#[test]
fn every_struct_is_laid_out_as_in_c() {
    let mut check = Check::default();
    for compare in generated::ALL {
        compare(&mut check);
    }
    assert!(check.differences.is_empty(), "{:#?}", check.differences);
    assert!(
        check.structs > 500 && check.fields > 2000,
        "{} {}",
        check.structs,
        check.fields
    );
}
