{
  "targets": [
    {
      "target_name": "gpu_memory",
      "sources": ["<!@(node -p \"require('node:fs').readdirSync('native/src').filter((f) => f.endsWith('.cc')).map((f) => 'native/src/' + f).join(' ')\")"],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"],
      "defines": ["NAPI_VERSION=8", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti"],
      "cflags_cc": ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-fvisibility=hidden", "-fvisibility-inlines-hidden"],
      "conditions": [["OS=='linux'", { "libraries": ["-ldl", "-pthread"] }]],
      "xcode_settings": { "CLANG_CXX_LANGUAGE_STANDARD": "c++20", "GCC_SYMBOLS_PRIVATE_EXTERN": "YES" }
    }
  ]
}
