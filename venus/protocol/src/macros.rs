//! Macros that define the generated types.

/// Defines an enum: a number with names for some values. Guests may send any value. `known` are
/// Vulkan's values, also those that have no name here.
macro_rules! enumeration {
    (
        $name:ident: $repr:ty, $c_name:literal, [$($known:pat),*]
        { $($constant:ident = $value:literal,)* }
    ) => {
        #[doc = concat!("`", $c_name, "`: any value is valid.")]
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $repr);

        impl $name {
            $(pub const $constant: Self = Self($value);)*
            pub(crate) const NAMES: crate::layout::Names = &[$(($value, stringify!($constant)),)*];
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                crate::layout::write_enum(f, Self::NAMES, i64::from(self.0))
            }
        }

        // SAFETY: a transparent number; any bits are valid.
        unsafe impl crate::runtime::Plain for $name {
            const HAS_ENUMS: bool = true;
            #[inline]
            fn make_known(&mut self, strays: &crate::runtime::Strays) {
                // Some enums have no value yet.
                #[allow(clippy::match_single_binding, reason = "see above")]
                let is_known = match self.0 {
                    $($known => true,)*
                    _ => false,
                };
                if !is_known {
                    self.0 = strays.value($c_name, self.0, Self::NAMES);
                }
            }
        }
        // SAFETY: a transparent number.
        unsafe impl crate::runtime::Zeroed for $name {}
    };
}

/// Defines a set of flags. Guests may send any bits. `known` are all bits of Vulkan.
macro_rules! flags {
    (
        $name:ident: $repr:ty, $c_name:literal, [$known:literal]
        { $($constant:ident = $value:literal,)* }
    ) => {
        #[doc = concat!("`", $c_name, "`: any bits are valid.")]
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $repr);

        impl $name {
            $(pub const $constant: Self = Self($value);)*
            pub(crate) const NAMES: crate::layout::Names = &[$(($value, stringify!($constant)),)*];

            /// Whether all bits of `other` are set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether no bit is set.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl crate::runtime::Flags for $name {
            const NAME: &'static str = $c_name;
            const KNOWN: u64 = $known;
            #[inline(always)]
            fn bits(self) -> u64 {
                u64::from(self.0)
            }
            #[inline(always)]
            fn of(bits: u64) -> Self {
                Self(bits as $repr)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl std::ops::BitAnd for $name {
            type Output = Self;
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl std::ops::Not for $name {
            type Output = Self;
            fn not(self) -> Self {
                Self(!self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                crate::layout::write_flags(f, Self::NAMES, u64::from(self.0))
            }
        }

        // SAFETY: a transparent number; any bits are valid.
        unsafe impl crate::runtime::Plain for $name {}
        // SAFETY: a transparent number.
        unsafe impl crate::runtime::Zeroed for $name {}
    };
}

/// Defines all handles, and the enum of their types.
macro_rules! handles {
    ($($name:ident = $value:literal, $c_name:literal;)*) => {
        /// The type of an object handle.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum HandleType {
            $(#[doc = concat!("`", $c_name, "`")] $name,)*
        }

        impl HandleType {
            /// Every type, in the order of the enum.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The value of `VkObjectType`.
            pub const fn vk(self) -> crate::vk::ObjectType {
                match self {
                    $(Self::$name => crate::vk::ObjectType($value),)*
                }
            }

            /// The type with this value of `VkObjectType`.
            pub const fn from_vk(value: i32) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The C name of the handle.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $c_name,)*
                }
            }
        }

        $(
            #[doc = concat!("`", $c_name, "`: the driver's handle, or the id on the guest's side.")]
            #[repr(transparent)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
            pub struct $name(pub u64);

            // SAFETY: a transparent number.
            unsafe impl crate::runtime::Zeroed for $name {}
            impl crate::runtime::Handle for $name {
                const TYPE: HandleType = HandleType::$name;
                fn from_raw(raw: u64) -> Self {
                    Self(raw)
                }
                fn raw(self) -> u64 {
                    self.0
                }
            }
        )*
    };
}

/// Implements zero for structs and unions, and for structs with an sType a default that has it.
macro_rules! structure {
    ($name:ident, $stype:ident) => {
        // SAFETY: repr(C) of numbers, arrays of them and raw pointers: zero is valid.
        unsafe impl crate::runtime::Zeroed for $name {}
        // SAFETY: begins with sType and pNext, as every struct with an sType.
        unsafe impl crate::runtime::Chained for $name {
            const STYPE: crate::vk::StructureType = crate::vk::StructureType::$stype;
        }
        impl Default for $name {
            fn default() -> Self {
                let zero = <Self as crate::runtime::Zeroed>::ZERO;
                Self {
                    s_type: crate::vk::StructureType::$stype,
                    ..zero
                }
            }
        }
    };
    (plain $name:ident $({ $($members:tt)* })?) => {
        // SAFETY: repr(C) of numbers without padding: any bits are valid.
        unsafe impl crate::runtime::Plain for $name {
            crate::macros::known_members!($($($members)*)?);
        }
        crate::macros::structure!($name);
    };
    ($name:ident) => {
        // SAFETY: repr(C) of numbers, arrays of them, unions and raw pointers: zero is valid.
        unsafe impl crate::runtime::Zeroed for $name {}
        impl Default for $name {
            fn default() -> Self {
                <Self as crate::runtime::Zeroed>::ZERO
            }
        }
    };
}

/// The items of [`crate::runtime::Plain`] for a struct: a list of the members that are enums or
/// structs with enums, and of those that are one flag.
macro_rules! known_members {
    () => {};
    ($($member:ident $($optional:ident)?;)+) => {
        const HAS_ENUMS: bool = true;
        #[inline]
        fn make_known(&mut self, strays: &crate::runtime::Strays) {
            $(crate::macros::known_member!(self strays $member $($optional)?);)+
        }
    };
}

macro_rules! known_member {
    ($self:ident $strays:ident $member:ident) => {
        $self.$member.make_known($strays)
    };
    ($self:ident $strays:ident $member:ident $optional:ident) => {
        $self.$member = $strays.bit($self.$member, crate::runtime::$optional)
    };
}

pub(crate) use {enumeration, flags, handles, known_member, known_members, structure};
