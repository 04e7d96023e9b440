plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "org.phonefit.demo"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "org.phonefit.demo"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = "0.1.0"
        // executorch-android has no other ABI
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }

    buildTypes {
        // `phonefit deploy` installs the debug build: fetching results by run-as needs a debuggable app
        release {
            isDebuggable = false
            isMinifyEnabled = false
        }
    }

    packaging {
        jniLibs {
            // more than one of the runtimes may bring it
            pickFirsts += "**/libc++_shared.so"
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation(project(":core"))
    implementation(libs.executorch)
    implementation(libs.fbjni)
    implementation(libs.nativeloader)
    implementation(libs.litert)
    implementation(libs.onnxruntime)
}
