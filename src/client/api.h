// What libwaldo.so shows; everything else in it is hidden.
#pragma once
#define WALDO_API __attribute__((visibility("default")))
